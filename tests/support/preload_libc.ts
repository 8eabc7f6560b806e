/**
 * Opens the C library before a documentation's example runs: one that the example opened would count as its leak.
 * For `deno test --doc --preload`.
 *
 * @module
 */

import { libc } from "../../kvm/libc.ts";

libc();
