import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { SecretRef } from "effect-toolops/secret"

const parts = (text: string, options?: SecretRef.Options) => Result.getOrThrow(SecretRef.parse(text, options))

/** Position and problem of the mistake in a text. */
const mistake = (text: string, options?: SecretRef.Options) => {
  const result = SecretRef.parse(text, options)
  assert.isTrue(Result.isFailure(result), `${text} parses`)
  if (!Result.isFailure(result) || result.failure.reason._tag !== "MalformedReference") throw new Error("unreachable")
  return [result.failure.reason.position, result.failure.reason.problem]
}

const secret = (provider: string, ref: string, position: number) =>
  ({ _tag: "Secret", provider, ref, position }) as const
const literal = (text: string) => ({ _tag: "Literal", text }) as const

/**
 * The grammar once more, written as one table of patterns that are tried at each place, and not as the parser is.
 * Undefined stands for a mistake.
 */
const reference = (text: string, strict: boolean): ReadonlyArray<unknown> | undefined => {
  const provider = "[a-z][a-z0-9_-]{0,63}"
  const name = "(?:[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029${}]){1,512}"
  const isName = (value: string) => value === value.trim() && !/secretref:/i.test(value)
  if (text.startsWith("secretref:")) {
    const whole = new RegExp(`^secretref:(${provider}):(${name})$`, "u").exec(text)
    return whole !== null && isName(whole[2]!) ? [secret(whole[1]!, whole[2]!, 0)] : undefined
  }
  const out: Array<any> = []
  const push = (piece: string) => {
    if (out.at(-1)?._tag === "Literal") out[out.length - 1] = literal(out.at(-1).text + piece)
    else out.push(literal(piece))
  }
  const table: ReadonlyArray<readonly [RegExp, (found: RegExpExecArray) => boolean | void]> = [
    [/\$\$/y, () => push("$")],
    [
      new RegExp(`\\$\\{secretref:(${provider}):(${name})\\}`, "uy"),
      (found) => isName(found[2]!) && void out.push(secret(found[1]!, found[2]!, found.index))
    ],
    [/\$\{secretref:/iy, () => false],
    [
      /\$\{([A-Za-z_][A-Za-z0-9_]*)\}/y,
      (found) => void out.push({ _tag: "Variable", name: found[1], position: found.index })
    ],
    [/\$\{/y, () => false],
    [/\$/y, () => strict ? false : push("$")],
    [
      new RegExp(`secretref:(${provider}):([A-Za-z0-9_\\-./:@+=~#%]*[A-Za-z0-9_\\-/@+=~#%])`, "y"),
      (found) =>
        isName(found[2]!) && found[2]!.length <= 512 && void out.push(secret(found[1]!, found[2]!, found.index))
    ],
    [/secretref:/iy, () => false],
    [/[^]/y, (found) => push(found[0])]
  ]
  let at = 0
  outer: while (at < text.length) {
    for (const [pattern, take] of table) {
      pattern.lastIndex = at
      const found = pattern.exec(text)
      if (found === null) continue
      if (take(found) === false) return undefined
      at += found[0].length
      continue outer
    }
    throw new Error("unreachable")
  }
  return out
}

describe("SecretRef", () => {
  it("reads a whole text as one reference, blanks and commas included", () => {
    assert.deepStrictEqual(parts("secretref:bws:project/My Project/key/a,b"), [
      secret("bws", "project/My Project/key/a,b", 0)
    ])
  })

  it("finds references inside of a text and leaves what surrounds them outside", () => {
    assert.deepStrictEqual(parts("Bearer secretref:p:k"), [literal("Bearer "), secret("p", "k", 7)])
    assert.deepStrictEqual(parts("{\"a\":\"secretref:p:k\",\"b\":[secretref:p:l,1]}"), [
      literal("{\"a\":\""),
      secret("p", "k", 6),
      literal("\",\"b\":["),
      secret("p", "l", 26),
      literal(",1]}")
    ])
    assert.deepStrictEqual(parts("see secretref:p:k."), [literal("see "), secret("p", "k", 4), literal(".")])
    assert.deepStrictEqual(parts("x${secretref:p:a b}y"), [literal("x"), secret("p", "a b", 1), literal("y")])
  })

  it("reads variables and dollars", () => {
    assert.deepStrictEqual(parts("${A}$$${B_2}"), [
      { _tag: "Variable", name: "A", position: 0 },
      literal("$"),
      { _tag: "Variable", name: "B_2", position: 6 }
    ])
    assert.deepStrictEqual(parts("$${A}"), [literal("${A}")])
    assert.deepStrictEqual(parts(""), [])
  })

  it("says where a text is malformed and what is wrong", () => {
    assert.deepStrictEqual(mistake("secretref:p"), [11, "a reference needs a name after its provider"])
    assert.deepStrictEqual(mistake("secretref:p:"), [12, "a reference needs a name after its provider"])
    assert.deepStrictEqual(mistake("secretref::k"), [10, "a reference needs a provider: secretref:<provider>:<ref>"])
    assert.deepStrictEqual(mistake("a secretref:"), [12, "a reference needs a provider: secretref:<provider>:<ref>"])
    assert.deepStrictEqual(mistake("secretref:P:k"), [
      10,
      "a provider is 1 to 64 of a-z 0-9 _ -, starting with a letter"
    ])
    assert.deepStrictEqual(mistake("a SecretRef:p:k"), [2, "secretref must be written in small letters"])
    assert.deepStrictEqual(mistake("SECRETREF:p:k"), [0, "secretref must be written in small letters"])
    assert.deepStrictEqual(mistake("ab${C"), [2, "${ is not closed"])
    assert.deepStrictEqual(mistake("${1A}"), [
      2,
      "a variable is named by letters, digits and _, not starting with a digit"
    ])
    assert.deepStrictEqual(mistake("pa$word"), [2, "a single $ must be written $$"])
    assert.deepStrictEqual(mistake("secretref:p:k\n")[1], "the name of a secret holds a character that it may not hold")
    assert.deepStrictEqual(mistake("secretref:p:k,secretref:p:l")[0], 12)
    assert.deepStrictEqual(mistake(`secretref:p:${"k".repeat(513)}`)[1], "the name of a secret is too long")
    assert.deepStrictEqual(
      mistake("secretref:p:${A}")[1],
      "the name of a secret holds a character that it may not hold"
    )
  })

  it("lets a single dollar stand for itself when it is not strict, and mistakes be mistakes", () => {
    assert.deepStrictEqual(parts("pa$word", { strict: false }), [literal("pa$word")])
    assert.deepStrictEqual(mistake("x${C", { strict: false })[1], "${ is not closed")
    assert.deepStrictEqual(mistake("x secretref:p", { strict: false })[0], 13)
  })

  it("agrees with the reference grammar on 100,000 texts", () => {
    const words = [
      ..."secretref:p:k$${}{}{}\"', .\n:/aZ0_-",
      "secretref:",
      "secretref:p:",
      "secretref:vault:a/b",
      "${secretref:p:x y}",
      "${A}",
      "$$",
      "${",
      "SecretRef:",
      "\u{1f600}",
      "\u2028"
    ]
    let seed = 42
    const next = (below: number): number => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
      return Math.floor((seed / 2 ** 32) * below)
    }
    let good = 0
    for (let i = 0; i < 100_000; i++) {
      let text = ""
      for (let length = next(7); length >= 0; length--) text += words[next(words.length)]
      const strict = next(2) === 0
      const expected = reference(text, strict)
      const result = SecretRef.parse(text, { strict })
      const found = Result.isSuccess(result) ? result.success : undefined
      if (found !== undefined && found.some((part) => part._tag !== "Literal")) good++
      if (Result.isFailure(result)) {
        const [position] = mistake(text, { strict })
        // Points at what is wrong or right behind it.
        assert.isTrue(Number(position) >= 0 && Number(position) <= text.length, JSON.stringify(text))
      }
      assert.deepStrictEqual(found, expected as never, JSON.stringify(text))
    }
    // Enough of the texts hold something, so agreement is no accident.
    assert.isAbove(good, 5000)
  })

  it("takes time linear in the text", () => {
    const start = performance.now()
    for (const piece of ["secretref:", "${", "$$", "secretref:p:k ", "${secretref:p:"]) {
      SecretRef.parse(`x${piece.repeat(100_000)}`)
    }
    assert.isBelow(performance.now() - start, 3000)
  })

  it("takes time linear in what might be the end of a name", () => {
    for (const end of [".", ":", ".:"]) {
      const start = performance.now()
      // The name of one is too long, that of the other ends where the many begin.
      assert.deepStrictEqual(mistake(`x secretref:p:${end.repeat(200_000)}a`)[1], "the name of a secret is too long")
      assert.deepStrictEqual(parts(`x secretref:p:a${end.repeat(200_000)}`).slice(0, 2), [
        literal("x "),
        secret("p", "a", 2)
      ])
      // 200,000 squared would be minutes.
      assert.isBelow(performance.now() - start, 2000)
    }
  })
})
