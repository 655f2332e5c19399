// CompreFace's package for JavaScript, unmodified, against `gdrd serve`: sdk.mjs GDRD STUDENT FACES NODE_MODULES.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [program, student, faces, modules] = process.argv.slice(2).map((path) => resolve(path));
const { CompreFace } = await import(pathToFileURL(join(modules, "@exadel/compreface-js-sdk/index.js")).href);
// The package prints addresses and keys.
const print = console.log;
console.log = () => {};

const folder = mkdtempSync(join(tmpdir(), "gdrd-sdk-"));
const server = spawn(program, ["serve", join(folder, "people.db"), "--student", student, "--listen", "127.0.0.1:0"], { stdio: ["ignore", "pipe", "inherit"] });
const lines = createInterface({ input: server.stdout })[Symbol.asyncIterator]();
const key = (await lines.next()).value.split("again: ")[1];
const address = new URL((await lines.next()).value.split("on ")[1]);

try {
  const client = new CompreFace(`http://${address.hostname}`, address.port);
  const service = client.initFaceRecognitionService(key);
  const verification = client.initFaceVerificationService(key);
  const detection = client.initFaceDetectionService(key);
  // The package's objects keep the address of their last call: one for each call.
  const subjects = () => service.getSubjects();
  const collection = () => service.getFaceCollection();

  assert.deepEqual(await subjects().add("Somebody"), { subject: "Somebody" });
  await assert.rejects(subjects().add("Somebody"), (error) => error.response.status === 400 && error.response.data.code === 43);
  assert.deepEqual(await subjects().rename("Somebody", "Nobody"), { updated: true });
  assert.deepEqual(await subjects().list(), { subjects: ["Nobody"] });
  assert.deepEqual(await subjects().delete("Nobody"), { subject: "Nobody" });

  // The package takes for a path what begins with a dot.
  process.chdir(faces);
  const people = readdirSync(".").sort().map((name) => [name, readdirSync(name).sort().map((image) => `./${name}/${image}`)]);
  const known = people.filter(([, images]) => images.length > 1).slice(0, 20);
  const ids = new Map();
  for (const [name, [first]] of known) {
    const said = await collection().add(first, name, {});
    assert.equal(said.subject, name);
    ids.set(name, said.image_id);
  }
  assert.equal((await collection().list()).total_elements, 20);
  let right = 0;
  const options = { limit: 0, det_prob_threshold: 0.8, prediction_count: 2, face_plugins: "calculator,landmarks", status: true };
  for (const [name, [first, second]] of known) {
    const { result, plugins_versions: versions } = await service.recognize(first, options);
    assert.deepEqual(result[0].subjects[0], { subject: name, similarity: 1 });
    assert.ok(result[0].subjects.length === 2 && result[0].embedding.length > 1 && versions.calculator.startsWith("gdrd"));
    // Base64 works as well as paths.
    const base64 = readFileSync(second).toString("base64");
    right += (await service.recognize(base64, options)).result[0].subjects[0].subject === name;
  }
  const [name, [first, second]] = known[0];
  const verified = (await collection().verify(second, ids.get(name), {})).result[0];
  assert.ok(verified.subject === name && verified.similarity >= 0 && verified.similarity <= 1);
  const both = (await verification.verify(first, second, {})).result[0];
  assert.ok(Math.abs(both.face_matches[0].similarity - verified.similarity) < 1e-4);
  assert.equal((await detection.detect(first, { limit: 1 })).result[0].box.probability, 1);
  assert.deepEqual(await collection().delete(ids.get(name)), { image_id: ids.get(name), subject: name });
  const two = [known[1], known[2]].map(([other]) => ids.get(other));
  assert.equal((await collection().delete_multiple_images(two)).length, 2);
  assert.deepEqual(await collection().delete_all_subject(known[3][0]), { deleted: 1 });
  assert.deepEqual(await collection().delete_all(), { deleted: 16 });
  assert.deepEqual(await subjects().deleteAll(), { deleted: 0 });
  print(`compreface-js-sdk: every call works; ${right} of ${known.length} second images are recognised among ${known.length} people`);
} finally {
  server.kill("SIGTERM");
  const code = await new Promise((done) => server.on("exit", done));
  rmSync(folder, { recursive: true });
  assert.equal(code, 0);
}
