import assert from "node:assert/strict";
import { MigrationError } from "../../migration/errors.ts";

Deno.test("MigrationError carries code, hint and cause", () => {
  const cause = new Error("connection reset");
  const error = new MigrationError("cut", "Cannot go on: the connection is lost", {
    hint: "check the network",
    cause,
  });
  assert.ok(error instanceof Error);
  assert.equal(error.name, "MigrationError");
  assert.equal(error.code, "cut");
  assert.equal(error.hint, "check the network");
  assert.equal(error.cause, cause);
});

Deno.test("MigrationError has neither hint nor cause when none is given", () => {
  const error = new MigrationError("vm", "Cannot release the VM: it runs again");
  assert.equal(error.hint, undefined);
  assert.equal("cause" in error, false);
});
