/**
 * Opens the C library and libcrypto before a documentation's example runs: one that the example opened would count
 * as its leak. For `deno test --doc --preload`.
 *
 * @module
 */

import { libcrypto } from "../../ciphers/libcrypto.ts";
import { libc } from "../../kvm/libc.ts";

libc();
libcrypto();
