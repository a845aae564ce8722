// Compiles right.ts and wrong.ts and holds the compiler's word against theirs. Ends with `N passed, N failed`.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const here = dirname(fileURLToPath(import.meta.url));
const options = {
	strict: true,
	noEmit: true,
	skipLibCheck: true,
	module: ts.ModuleKind.NodeNext,
	moduleResolution: ts.ModuleResolutionKind.NodeNext,
	target: ts.ScriptTarget.ES2022,
	lib: ["lib.es2022.d.ts", "lib.dom.d.ts"],
	types: [],
};
let passed = 0;
let failed = 0;

function check(what, ok, told) {
	ok ? passed++ : failed++;
	if (!ok) console.log(`FAIL ${what}\n${told}`);
}

// The errors of each line, and of other files, as text.
function errors(file) {
	const program = ts.createProgram([join(here, file)], options);
	return ts.getPreEmitDiagnostics(program).map((found) => {
		const at = found.file?.getLineAndCharacterOfPosition(found.start);
		const text = `TS${found.code}: ${ts.flattenDiagnosticMessageText(found.messageText, "\n")}`;
		return { own: found.file?.fileName.endsWith(`/${file}`), line: at?.line, code: `TS${found.code}`, text: `${found.file?.fileName}:${at?.line + 1} ${text}` };
	});
}

const right = errors("right.ts");
check("right.ts compiles", right.length === 0, right.map((e) => e.text).join("\n"));

const wrong = errors("wrong.ts");
check("nothing but wrong.ts has errors", wrong.every((e) => e.own), wrong.map((e) => e.text).join("\n"));
readFileSync(join(here, "wrong.ts"), "utf8").split("\n").forEach((text, line) => {
	const expected = text.match(/\/\/ (TS\d+)$/)?.[1];
	const found = wrong.filter((e) => e.own && e.line === line);
	if (expected === undefined && found.length === 0) return;
	const same = found.length === 1 && found[0].code === expected;
	check(`wrong.ts:${line + 1} ${text}`, same, found.map((e) => e.text).join("\n") || "compiles");
});

console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
