import { runTranscript } from "../support/run_transcript.ts";

const folder = new URL("../transcripts/", import.meta.url);

for (const { name } of [...Deno.readDirSync(folder)].sort((a, b) => a.name < b.name ? -1 : 1)) {
  if (!name.endsWith(".txt")) continue;
  Deno.test(`transcript ${name} is what the command line prints`, async () => {
    const directory = await Deno.makeTempDir({ prefix: "sealift-transcript-" });
    try {
      await runTranscript(await Deno.readTextFile(new URL(name, folder)), { name, directory });
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  });
}
