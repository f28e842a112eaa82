import { assert, describe, it } from "@effect/vitest"
import { CallRecord } from "effect-toolops"
import { AuditFormat, type AuditRecord } from "effect-toolops/auth"
import * as Random from "../support/random.ts"

const full: AuditRecord.AuditRecord = {
  version: 1,
  kind: "call",
  callId: "c-1",
  time: 1_700_000_000_000,
  offsetMillis: 12.5,
  caller: { tenant: "acme", principal: "ada", method: "api_key", keyId: "k1" },
  peer: "10.0.0.1",
  tool: { id: "docs:search", digest: "d".repeat(64), action: "call" },
  input: { digest: "e".repeat(64), fields: { q: "a=b", limit: 3 } },
  decision: { allow: true, rule: "role reader: docs:*" },
  outcome: "ok",
  durationMillis: 3.7,
  attempts: 1,
  traceId: "0".repeat(32),
  spanId: "1".repeat(16)
}

const json = (record: AuditRecord.AuditRecord): any => JSON.parse(JSON.stringify(AuditFormat.toOcsf(record)))

/** Reads a line of CEF as its specification says, without a look at how it was written. */
const readCef = (line: string) => {
  const fields: Array<string> = []
  let at = 0
  let field = ""
  while (fields.length < 7 && at < line.length) {
    const character = line[at]!
    if (character === "\\") {
      const next = line[at + 1] ?? ""
      assert.isTrue(next === "\\" || next === "|", `escape ${next} in the header`)
      field += next
      at += 2
    } else if (character === "|") {
      fields.push(field)
      field = ""
      at += 1
    } else {
      field += character
      at += 1
    }
  }
  const extension = line.slice(at)
  // A key is a word before an equals sign that is not escaped, at the start or behind a space.
  const starts = [...extension.matchAll(/(?:^| )([A-Za-z0-9_]+)=/g)]
  const members: Record<string, string> = {}
  starts.forEach(({ 0: whole, 1: key = "", index }, i) => {
    const raw = extension.slice(index + whole.length, starts[i + 1]?.index)
    assert.notMatch(raw, /(?<!\\)(?:\\\\)*=/, `an equals sign that is not escaped in ${raw}`)
    members[key] = raw.replace(/\\(.)/g, (_, c: string) => c === "n" ? "\n" : c === "r" ? "\r" : c)
  })
  return { fields, members }
}

describe("AuditFormat.toOcsf", () => {
  it("has what class 6003 requires", () => {
    const event = json(full)
    assert.deepInclude(event, {
      category_uid: 6,
      class_uid: 6003,
      activity_id: 99,
      activity_name: "call",
      type_uid: 600399,
      severity_id: 1,
      status_id: 1,
      status_detail: "ok",
      time: 1_700_000_000_000,
      duration: 4
    })
    assert.deepStrictEqual(event.metadata, {
      version: "1.3.0",
      product: { name: "effect-toolops", vendor_name: "effect-toolops" },
      log_name: "audit",
      log_version: "1",
      event_code: "call",
      correlation_uid: "c-1"
    })
    assert.deepStrictEqual(event.actor, {
      user: { uid: "ada", name: "ada", org: { uid: "acme" }, credential_uid: "k1", type_id: 0 },
      authorizations: [{ decision: "allowed", policy: { name: "role reader: docs:*" } }]
    })
    assert.deepStrictEqual(event.api, { operation: "docs:search", request: { uid: "c-1" } })
    assert.deepStrictEqual(event.src_endpoint, { ip: "10.0.0.1" })
    assert.deepStrictEqual(event.unmapped.input, full.input)
  })

  it("has required members for every outcome and kind, and for who is not known", () => {
    const { caller: _, peer: __, ...unknown } = full
    for (const outcome of [...CallRecord.outcomes, undefined]) {
      for (const kind of ["call", "decision", "outcome", "repeats", "lost", "repaired"] as const) {
        const event = json({ ...unknown, kind, outcome })
        for (const name of ["time", "metadata", "actor", "api", "src_endpoint", "severity_id", "status_id"]) {
          assert.property(event, name)
        }
        assert.isAbove(Object.keys(event.actor.user ?? event.actor).length, 0)
        assert.isAbove(Object.keys(event.src_endpoint).length, 0)
        assert.include([0, 1, 2, 99], event.status_id)
        assert.isNotEmpty(event.api.operation)
      }
    }
  })

  const statuses: ReadonlyArray<readonly [Partial<AuditRecord.AuditRecord>, string, number]> = [
    [{ outcome: "cached" }, "success", 1],
    [{ outcome: "denied", decision: { allow: false } }, "failure", 3],
    [{ outcome: "limited" }, "failure", 2],
    [{ outcome: "defect" }, "failure", 3],
    [{ outcome: "interrupted" }, "other", 1],
    [{ kind: "decision", outcome: undefined }, "unknown", 1],
    [{ kind: "decision", outcome: undefined, decision: { allow: false } }, "failure", 1],
    [{ kind: "lost", outcome: undefined, count: 3 }, "other", 4]
  ]
  for (const [part, status, severity] of statuses) {
    it(`says ${status} of ${JSON.stringify(part)}`, () => {
      const event = json({ ...full, ...part })
      assert.deepStrictEqual([event.status, event.severity_id], [status, severity])
    })
  }

  it("takes a peer for an address only when it looks like one", () => {
    const addresses = ["10.0.0.1", "0.0.0.0", "255.255.255.255", "::1", "2001:db8::1", "::", "::ffff:10.0.0.1"]
    const names = [
      "edge-7",
      "999.999.1.1",
      "256.0.0.1",
      "1.2.3",
      "1.2.3.4.",
      "1.2.3.4.5",
      "010.0.0.1",
      ":::",
      ":",
      "a:b",
      "::1]/x"
    ]
    for (const peer of addresses) assert.deepStrictEqual(json({ ...full, peer }).src_endpoint, { ip: peer })
    for (const peer of names) {
      assert.deepStrictEqual(json({ ...full, peer }).src_endpoint, { name: peer })
      const { members } = readCef(AuditFormat.toCef({ ...full, peer }))
      assert.deepStrictEqual([members["src"], members["c6a2"], members["shost"]], [undefined, undefined, peer])
    }
  })
})

describe("AuditFormat.toCef", () => {
  it("has a header of seven fields and extensions of the dictionary", () => {
    const { fields, members } = readCef(AuditFormat.toCef(full))
    assert.deepStrictEqual(fields, ["CEF:0", "effect-toolops", "effect-toolops", "1", "call:ok", "Tool call", "2"])
    assert.deepStrictEqual(members, {
      rt: "1700000000000",
      externalId: "c-1",
      act: "call",
      outcome: "ok",
      destinationServiceName: "docs:search",
      suid: "ada",
      src: "10.0.0.1",
      ToolopsMethod: "api_key",
      ToolopsDecision: "allowed",
      cs1Label: "tenant",
      cs1: "acme",
      cs2Label: "rule",
      cs2: "role reader: docs:*",
      cs3Label: "toolDigest",
      cs3: "d".repeat(64),
      cs4Label: "inputDigest",
      cs4: "e".repeat(64),
      cs5Label: "traceId",
      cs5: "0".repeat(32),
      cs6Label: "keyId",
      cs6: "k1",
      cn1Label: "durationMillis",
      cn1: "4",
      cn2Label: "attempts",
      cn2: "1",
      flexString1Label: "input",
      flexString1: "{\"q\":\"a=b\",\"limit\":3}"
    })
  })

  it("says who vouches for the caller", () => {
    const record = { ...full, caller: { principal: "ada", method: "jwt", issuer: "https://id.example" } }
    const { members } = readCef(AuditFormat.toCef(record))
    assert.deepStrictEqual([members["flexString2Label"], members["flexString2"]], ["issuer", "https://id.example"])
    assert.strictEqual(json(record).unmapped["issuer"], "https://id.example")
  })

  it("counts repeats and losses", () => {
    const { fields, members } = readCef(AuditFormat.toCef({ ...full, kind: "lost", outcome: undefined, count: 7 }))
    assert.deepStrictEqual([fields[4], fields[5], fields[6], members["cnt"]], ["lost", "Audit log", "9", "7"])
    const { members: repeats } = readCef(AuditFormat.toCef({ ...full, kind: "repeats", outcome: "denied", count: 9 }))
    assert.strictEqual(repeats["cnt"], "9")
  })

  it("says where a call came from by the field for it", () => {
    const of = (peer: string) => readCef(AuditFormat.toCef({ ...full, peer })).members
    assert.strictEqual(of("10.0.0.1")["src"], "10.0.0.1")
    assert.strictEqual(of("2001:db8::1")["c6a2"], "2001:db8::1")
    assert.strictEqual(of("edge-7")["shost"], "edge-7")
  })

  it("stays one line with the same meaning, whatever callers write, over 5,000 texts", () => {
    const random = Random.make(6003)
    const parts = ["|", "=", "\\", "\n", "\r", " ", "a", "suid=root", " suid=root", "\\n", "\\=", "CEF:0|", "é", "😀"]
    for (let i = 0; i < 5000; i++) {
      const text = Array.from({ length: 1 + random.below(8) }, () => random.pick(parts)).join("")
      const record = {
        ...full,
        callId: text,
        caller: { principal: text, method: text, tenant: text, keyId: text },
        peer: `${text}x`,
        decision: { allow: false, rule: text, reason: text },
        errorType: text,
        input: { fields: { [text]: text } }
      } as const
      const line = AuditFormat.toCef(record)
      assert.notMatch(line, /[\r\n]/)
      const { fields, members } = readCef(line)
      assert.strictEqual(fields.length, 7)
      assert.strictEqual(members["suid"], text, JSON.stringify(line))
      for (const name of ["externalId", "cs1", "cs2", "cs6", "reason", "ToolopsMethod"]) {
        assert.strictEqual(members[name], text)
      }
      assert.strictEqual(members["flexString1"], JSON.stringify({ [text]: text }))
    }
  })

  it("holds no control characters and no lone surrogates", () => {
    const controls = Array.from({ length: 160 }, (_, i) => String.fromCharCode(i)).join("")
    const hostile = `${controls}\u00ad\u061c\u200b\u200d\u2028\u2029\u202e\u2060\u2066\ufeff\u{e0041}\ud800`
    const line = AuditFormat.toCef({
      ...full,
      tool: { id: hostile, action: hostile },
      caller: { principal: hostile, method: hostile }
    })
    // oxlint-disable-next-line no-control-regex -- what must not be in a line
    assert.notMatch(line, /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202e\u2066]/)
    assert.notMatch(line, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
    assert.isTrue(line.isWellFormed())
  })
})
