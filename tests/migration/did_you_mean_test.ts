import assert from "node:assert/strict";
import { didYouMean } from "../../migration/did_you_mean.ts";

const known = ["user", "kernelText", "kernelData", "unmapped"];

Deno.test("didYouMean() finds the nearest word, whatever the mistake and the case", () => {
  for (const word of ["kernelTxt", "kernelTextt", "kernelTxet", "KERNELTEXT", "kernelTest"]) {
    assert.equal(didYouMean(word, known), "; did you mean kernelText?", word);
  }
  assert.equal(didYouMean("usre", known), "; did you mean user?");
});

Deno.test("didYouMean() says nothing when no word is near", () => {
  for (const word of ["", "pages", "u", "x".repeat(100_000)]) {
    assert.equal(didYouMean(word, known), "");
  }
  assert.equal(didYouMean("user", []), "");
});
