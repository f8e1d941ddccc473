// Parses multipart bodies with one of Node's parsers: node parse_multipart.js busboy|formidable|fetch
// In: a JSON list of [content type, path of the body]. Out: for each a list of {name, fileName, type, value | sha256},
// or the name of the error.
"use strict";
const { createHash } = require("crypto");
const fs = require("fs");

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

const parsers = {
  busboy(contentType, path) {
    const parts = [];
    return new Promise((resolve, reject) => {
      const parser = require("busboy")({ headers: { "content-type": contentType }, preservePath: true });
      parser.on("field", (name, value) => parts.push({ name, value }));
      parser.on("file", (name, stream, info) => {
        const hash = createHash("sha256");
        stream.on("data", (block) => hash.update(block));
        stream.on("end", () =>
          parts.push({ name, fileName: info.filename, type: info.mimeType, sha256: hash.digest("hex") }));
      });
      parser.on("close", () => resolve(parts));
      parser.on("error", reject);
      fs.createReadStream(path).pipe(parser);
    });
  },

  async formidable(contentType, path) {
    const { formidable } = require("formidable");
    const request = fs.createReadStream(path);
    request.headers = { "content-type": contentType, "content-length": String(fs.statSync(path).size) };
    const form = formidable({ allowEmptyFiles: true, minFileSize: 0, hashAlgorithm: "sha256", uploadDir: process.env.UPLOADS });
    const [fields, files] = await form.parse(request);
    const parts = [];
    for (const name in fields) for (const value of fields[name]) parts.push({ name, value });
    for (const name in files)
      for (const file of files[name])
        parts.push({ name, fileName: file.originalFilename, type: file.mimetype, sha256: file.hash });
    return parts;
  },

  async fetch(contentType, path) {
    const response = new Response(fs.readFileSync(path), { headers: { "content-type": contentType } });
    const parts = [];
    for (const [name, value] of await response.formData())
      parts.push(typeof value === "string" ? { name, value }
        : { name, fileName: value.name, type: value.type, sha256: sha256(Buffer.from(await value.arrayBuffer())) });
    return parts;
  },
};

(async () => {
  const name = process.argv[2];
  if (name !== "fetch") require.resolve(name);
  const results = [];
  for (const [contentType, path] of JSON.parse(fs.readFileSync(0, "utf8")))
    results.push(await parsers[name](contentType, path).catch((error) => error.constructor.name));
  console.log(JSON.stringify(results));
})();
