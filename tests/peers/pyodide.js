// Runs a Python program in Pyodide: CPython as WebAssembly. NODE_PATH says where `npm install pyodide` put it.
// node pyodide.js FOLDER <PROGRAM    The folder is /repository in there; a program whose last value is false has failed.
const fs = require("fs");

async function main() {
  const python = await require("pyodide").loadPyodide();
  python.FS.mkdir("/repository");
  python.mountNodeFS("/repository", process.argv[2]);
  return python.runPython(fs.readFileSync(0, "utf8"));
}

main().then(
  (passed) => { process.exitCode = passed ? 0 : 1; },
  (error) => { console.error(error.message); process.exitCode = 1; },  // without the line of source, which is very long
);
