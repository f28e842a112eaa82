/**
 * `npm run package`: is what would be published what a user can use?
 *
 * Lints the package, checks its types as every module system sees them, packs it, installs the tarball beside `effect`
 * in a temporary folder, and there imports every subpath, tries deep imports (which must fail), and compiles a program.
 */
import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const root = join(import.meta.dirname, "../..")
const bin = (name: string) => join(root, "node_modules/.bin", name)
const run = (command: string, args: ReadonlyArray<string>, cwd: string): string =>
  execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] })

const step = (name: string, body: () => void): void => {
  try {
    body()
    console.log(`ok    ${name}`)
  } catch (error) {
    console.error(`FAIL  ${name}`)
    const output = error as { readonly stdout?: string; readonly stderr?: string; readonly message?: string }
    console.error([output.stdout, output.stderr, output.message].filter(Boolean).join("\n"))
    process.exitCode = 1
  }
}

const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  readonly name: string
  readonly exports: Record<string, unknown>
}
const subpaths = Object.keys(manifest.exports).filter((path) => path !== "./package.json")
const specifiers = subpaths.map((path) => manifest.name + path.slice(1))

const folder = mkdtempSync(join(tmpdir(), "effect-toolops-package-"))
try {
  const packed = JSON.parse(
    run("npm", ["pack", "--ignore-scripts", "--json", "--pack-destination", folder], root)
  ) as ReadonlyArray<{ readonly filename: string }>
  const tarball = join(folder, packed[0]!.filename)

  step("publint", () => void run(bin("publint"), ["run", tarball, "--strict"], root))
  step("are the types wrong", () => void run(bin("attw"), [tarball, "--profile", "esm-only"], root))

  step("the tarball installs beside effect", () => {
    writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "consumer", private: true, type: "module" }))
    const locked = ["effect", "@types/node"].map((name) => {
      const { version } = JSON.parse(readFileSync(join(root, "node_modules", name, "package.json"), "utf8")) as {
        readonly version: string
      }
      return `${name}@${version}`
    })
    const quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", "--strict-peer-deps"]
    run("npm", ["install", ...quiet, tarball, ...locked], folder)
  })

  step(`every subpath imports: ${subpaths.join(" ")}`, () => {
    const program = `
      for (const specifier of ${JSON.stringify(specifiers)}) {
        const module = await import(specifier)
        const names = Object.keys(module)
        if (names.length === 0) throw new Error(specifier + " exports nothing")
        for (const name of names) {
          if (typeof module[name] !== "object") throw new Error(specifier + " exports " + name + ", which is no namespace")
        }
      }`
    run(process.execPath, ["--input-type=module", "-e", program], folder)
  })

  step("deep imports are out of reach", () => {
    const deep = ["internal/options.js", "dist/index.js", "auth/Rbac", "src/index.ts", "dist/internal/options.js"]
    const program = `
      for (const path of ${JSON.stringify(deep)}) {
        const outcome = await import(${JSON.stringify(manifest.name + "/")} + path).then(() => "reached", (e) => e.code)
        if (outcome !== "ERR_PACKAGE_PATH_NOT_EXPORTED") throw new Error(path + ": " + outcome)
      }`
    run(process.execPath, ["--input-type=module", "-e", program], folder)
  })

  step("a program compiles against the published types", () => {
    writeFileSync(
      join(folder, "program.ts"),
      specifiers.map((specifier, i) => `import * as M${i} from ${JSON.stringify(specifier)}`).join("\n") +
        `\nexport const all = [${specifiers.map((_, i) => `M${i}`).join(", ")}]\n` +
        `import { ToolMeta } from "${manifest.name}"\n` +
        `export const id: string = ToolMeta.make({ name: "x", varies: "everyone" }).id\n` +
        `// @ts-expect-error: not an option\nToolMeta.make({ name: "x", readonly: true })\n`
    )
    const options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2023", "--types", "node"]
    run(bin("tsc"), [...options, "--skipLibCheck", "false", "program.ts"], folder)
  })
} finally {
  rmSync(folder, { recursive: true, force: true })
}
