import assert from "node:assert/strict";
import { CliError } from "../../cli/cli_error.ts";
import { errorReport, exitCodes, outcomeOf } from "../../cli/exit_codes.ts";
import { migrationErrorCodes } from "../../migration/errors.ts";
import { outcomeOf as migrationOutcomeOf } from "../../migration/result.ts";

Deno.test("outcomeOf() agrees with the migration's own outcome for every code but usage", () => {
  for (const code of migrationErrorCodes) {
    assert.equal(outcomeOf(code), code === "usage" ? "usage" : migrationOutcomeOf(code), code);
  }
});

Deno.test("outcomeOf() is aborted for a code that nobody knows", () => {
  for (const code of ["internal", "missing", "toString", "__proto__", ""]) {
    assert.equal(exitCodes[outcomeOf(code)], 1, code);
  }
});

Deno.test("errorReport() takes code and hint where there are any", () => {
  assert.deepEqual(errorReport(new CliError("usage", "no", { hint: "look" })), {
    code: "usage",
    message: "no",
    hint: "look",
  });
  assert.deepEqual(errorReport(new Error("oh")), { code: "internal", message: "oh", hint: null });
  assert.deepEqual(errorReport("text"), { code: "internal", message: "text", hint: null });
});
