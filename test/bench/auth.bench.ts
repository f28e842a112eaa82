import * as Cedar from "@cedar-policy/cedar-wasm/nodejs"
import * as Casbin from "casbin"
import { Effect, Layer, Redacted } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { ApiKey, Authenticator, AuthMiddleware, Authorizer, Identity, Jwt, Rbac } from "effect-toolops/auth"
import { createVerifier } from "fast-jwt"
import * as Jose from "jose"
import jsonwebtoken from "jsonwebtoken"
import * as Crypto from "node:crypto"
import type { Case, Group } from "./harness.ts"

const issuer = "https://issuer.example"
const audience = "https://tools.example"
const secret = Crypto.randomBytes(64).toString("hex")

/** Makes an effect and runs it, `n` times in one fiber. */
const repeat = (body: () => Effect.Effect<unknown, unknown>) => (n: number) =>
  Effect.runPromise(Effect.suspend(() => {
    let left = n
    let last: unknown = undefined
    return Effect.map(
      Effect.whileLoop({
        while: () => left > 0,
        body,
        step: (value) => {
          left -= 1
          last = value
        }
      }),
      () => last
    )
  }))

const loop = (run: () => unknown) => (n: number) => {
  let last: unknown = undefined
  for (let i = 0; i < n; i++) last = run()
  return last
}

const loopAsync = (run: () => Promise<unknown>) => async (n: number) => {
  let last: unknown = undefined
  for (let i = 0; i < n; i++) last = await run()
  return last
}

const present: NonNullable<Case["check"]> = (result) => {
  if (result === undefined || result === null || result === false) throw new Error("nothing came back")
}
const principal: NonNullable<Case["check"]> = (result) => {
  if ((result as Identity.Identity).principal !== "ada") throw new Error("not the caller")
}
const allowed: NonNullable<Case["check"]> = (result) => {
  if ((result as Authorizer.Decision).allow !== true) throw new Error("not allowed")
}

// What a request of an HTTP client carries.
const requestHeaders = {
  "host": "tools.example",
  "accept": "application/json, text/event-stream",
  "content-type": "application/json",
  "content-length": "123",
  "user-agent": "agent/1.0",
  "accept-encoding": "gzip, br"
}

const who = (authenticator: Authenticator.Service, headers: Record<string, string>) => {
  const all = { ...requestHeaders, ...headers }
  return () => Authenticator.identify(authenticator, all)
}

const apiKeys = async (): Promise<Group> => {
  const key = await Effect.runPromise(ApiKey.generate())
  const text = Redacted.value(key)
  const store = await Effect.runPromise(
    Effect.provide(ApiKey.ApiKeyStore, ApiKey.layerMemory({ keys: [{ id: "k", key, principal: "ada" }] }))
  )
  const known = new Map([[Crypto.hash("sha256", text), "ada"]])
  const hashed = Effect.sync(() => Crypto.hash("sha256", text))
  return {
    name: "auth: API key",
    cases: [
      { name: "crypto.hash", run: loop(() => Crypto.hash("sha256", text)), check: present },
      { name: "crypto.hash and a Map", run: loop(() => known.get(Crypto.hash("sha256", text))), check: present },
      {
        name: "crypto.hash in a fiber",
        run: repeat(() => hashed),
        check: present
      },
      {
        name: "ApiKey",
        run: repeat(who(ApiKey.make(store), { "x-api-key": text })),
        check: principal,
        baseline: "crypto.hash",
        goal: 1.5
      },
      {
        name: "ApiKey beside a hash in a fiber",
        run: repeat(who(ApiKey.make(store), { "x-api-key": text })),
        check: principal,
        baseline: "crypto.hash in a fiber"
      }
    ]
  }
}

const algorithms = ["HS256", "RS256", "ES256", "EdDSA"] as const

const keysOf = (algorithm: typeof algorithms[number]) =>
  algorithm === "RS256"
    ? Crypto.generateKeyPairSync("rsa", { modulusLength: 2048 })
    : algorithm === "ES256"
    ? Crypto.generateKeyPairSync("ec", { namedCurve: "P-256" })
    : Crypto.generateKeyPairSync("ed25519")

const tokens = async (): Promise<ReadonlyArray<Group>> => {
  const cached: Array<Case> = []
  const first: Array<Case> = []
  for (const algorithm of algorithms) {
    const pair = keysOf(algorithm)
    const isSecret = algorithm === "HS256"
    const token = await new Jose.SignJWT({ roles: ["reader"], scope: "files:read" })
      .setProtectedHeader({ alg: algorithm, typ: "JWT" })
      .setIssuer(issuer).setAudience(audience).setSubject("ada").setIssuedAt().setExpirationTime("1h")
      .sign(isSecret ? new TextEncoder().encode(secret) : pair.privateKey)
    const pem = pair.publicKey.export({ type: "spki", format: "pem" }) as string
    const options: Jwt.Options = {
      algorithms: [algorithm],
      keys: [isSecret ? { secret: Redacted.make(secret) } : { pem }],
      issuer,
      audience
    }
    const withCache = await Effect.runPromise(Jwt.make(options))
    const without = await Effect.runPromise(Jwt.make({ ...options, cache: { timeToLive: 0 } }))
    const expected = { algorithms: [algorithm], allowedIss: issuer, allowedAud: audience, key: isSecret ? secret : pem }
    const fast = createVerifier({ ...expected, cache: true })
    const fastWithout = createVerifier({ ...expected, cache: false })
    const joseKey = isSecret
      ? await crypto.subtle.importKey(
        "raw",
        new TextEncoder().encode(secret),
        { name: "HMAC", hash: "SHA-256" },
        false,
        ["verify"]
      )
      : await Jose.importSPKI(pem, algorithm)
    const authorization = `Bearer ${token}`
    cached.push(
      { name: `${algorithm} fast-jwt with its cache`, run: loop(() => fast(token)), check: present },
      {
        name: `${algorithm} Jwt, seen before`,
        run: repeat(who(withCache, { authorization })),
        check: principal,
        baseline: `${algorithm} fast-jwt with its cache`,
        goal: 1
      }
    )
    first.push(
      {
        name: `${algorithm} jose`,
        run: loopAsync(() => Jose.jwtVerify(token, joseKey, { algorithms: [algorithm], issuer, audience })),
        check: present
      },
      {
        name: `${algorithm} Jwt, first time`,
        run: repeat(who(without, { authorization })),
        check: principal,
        baseline: `${algorithm} jose`,
        goal: 1.15
      },
      { name: `${algorithm} fast-jwt without its cache`, run: loop(() => fastWithout(token)), check: present }
    )
    if (algorithm !== "EdDSA") {
      first.push({
        name: `${algorithm} jsonwebtoken`,
        run: loop(() =>
          jsonwebtoken.verify(token, isSecret ? secret : pem, { algorithms: [algorithm], issuer, audience })
        ),
        check: present
      })
    }
  }
  // Only after some thousand tokens has V8 compiled all of it, on either side; a server gets there within a minute.
  for (const one of first) await one.run(3000)
  return [{ name: "auth: bearer token, seen before", cases: cached }, {
    name: "auth: bearer token, first time",
    cases: first
  }]
}

const rolesOf = (count: number): Record<string, Rbac.Role> =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`role${i}`, {
    permissions: [`ns${i}:*:call`, `ns${i}:tool:list`],
    deniedTools: [`ns${i}:danger`],
    ...i > 0 && i % 10 === 0 ? { inherits: [`role${i - 1}`] } : {}
  }]))

// Roles, wildcards and denials, as `Rbac` has them.
const casbinModel = `
[request_definition]
r = sub, obj, act

[policy_definition]
p = sub, obj, act, eft

[role_definition]
g = _, _

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = g(r.sub, p.sub) && keyMatch(r.obj, p.obj) && r.act == p.act
`

const casbin = async (count: number): Promise<ReadonlyArray<Case>> => {
  const cases: Array<Case> = []
  for (const cached of [false, true]) {
    const model = Casbin.newModelFromString(casbinModel)
    const enforcer = cached ? await Casbin.newCachedEnforcer(model) : await Casbin.newEnforcer(model)
    await enforcer.addPolicies(Array.from({ length: count }, (_, i) => [`role${i}`, `ns${i}:*`, "call", "allow"]))
    await enforcer.addGroupingPolicy("ada", "role5")
    cases.push({
      name: `casbin, ${count} policies${cached ? ", answered before" : ""}`,
      run: loopAsync(() => enforcer.enforce("ada", "ns5:tool", "call")),
      check: present
    })
  }
  return cases
}

const decisions = async (): Promise<Group> => {
  const identity = Identity.make({ principal: "ada", roles: ["role5"] })
  const tool = ToolMeta.make({ namespace: "ns5", name: "tool" })
  const cedar = (count: number): Case => {
    const id = `policy${count}`
    Cedar.preparsePolicySet(id, {
      staticPolicies: Array.from(
        { length: count },
        (_, i) => `permit(principal in Role::"role${i}", action == Action::"call", resource in Namespace::"ns${i}");`
      ).join("\n")
    })
    const role = { type: "Role", id: "role5" }
    const namespace = { type: "Namespace", id: "ns5" }
    const call: Cedar.StatefulAuthorizationCall = {
      principal: { type: "User", id: "ada" },
      action: { type: "Action", id: "call" },
      resource: { type: "Tool", id: "ns5:tool" },
      context: {},
      preparsedPolicySetId: id,
      entities: [
        { uid: { type: "User", id: "ada" }, attrs: {}, parents: [role] },
        { uid: role, attrs: {}, parents: [] },
        { uid: { type: "Tool", id: "ns5:tool" }, attrs: {}, parents: [namespace] },
        { uid: namespace, attrs: {}, parents: [] }
      ]
    }
    return {
      name: `cedar-wasm, ${count} policies parsed before`,
      run: loop(() => Cedar.statefulIsAuthorized(call)),
      check: (result) => {
        const answer = result as Cedar.AuthorizationAnswer
        if (answer.type !== "success" || answer.response.decision !== "allow") throw new Error("not allowed")
      }
    }
  }
  return {
    name: "auth: roles",
    cases: [
      ...[10, 100, 1000].flatMap((count): ReadonlyArray<Case> => {
        const rbac = Rbac.make({ roles: rolesOf(count) })
        const request = { identity, tool, action: "call", input: undefined }
        const set = new Set(Array.from({ length: count }, (_, i) => `role${i} ns${i}:tool call`))
        return [
          {
            name: `a Set of ${count} strings`,
            run: loop(() => set.has(`${identity.roles[0]} ${tool.id} ${request.action}`)),
            check: present
          },
          {
            name: `Rbac, ${count} roles`,
            run: repeat(() => rbac.authorize(request)),
            check: allowed,
            baseline: `a Set of ${count} strings`,
            goal: 2.5
          }
        ]
      }),
      ...[10, 100, 1000].map(cedar),
      ...await casbin(10),
      ...await casbin(100),
      ...await casbin(1000)
    ]
  }
}

const stage = async (): Promise<Group> => {
  const key = await Effect.runPromise(ApiKey.generate())
  const token = await new Jose.SignJWT({ roles: ["role5"] }).setProtectedHeader({ alg: "HS256" })
    .setIssuer(issuer).setAudience(audience).setSubject("ada").setExpirationTime("1h")
    .sign(new TextEncoder().encode(secret))
  const Auth = AuthMiddleware.layer.pipe(Layer.provide([
    Authenticator.layerFirstOf(
      Layer.provide(
        ApiKey.layer(),
        ApiKey.layerMemory({ keys: [{ id: "k", key, principal: "ada", roles: ["role5"] }] })
      ),
      Jwt.layer({ algorithms: ["HS256"], keys: [{ secret: Redacted.make(secret) }], issuer, audience })
    ),
    Rbac.layer({ roles: rolesOf(100) })
  ]))
  const pipeline = await Effect.runPromise(Effect.provide(ToolPipeline.make(AuthMiddleware.AuthMiddleware), Auth))
  const tool = ToolMeta.make({ namespace: "ns5", name: "tool" })
  const handler = Effect.map(Effect.succeed("answer"), (answer) => answer)
  const guarded = pipeline.wrap(tool, () => handler)
  const run = (headers: Record<string, string>) => {
    const all = { ...requestHeaders, ...headers }
    return repeat(() => guarded(undefined, { headers: all }))
  }
  const known = Effect.provideService(
    Effect.suspend(() => guarded(undefined)),
    Identity.CurrentIdentity,
    Identity.make({ principal: "ada", roles: ["role5"] })
  )
  return {
    name: "auth: the whole stage",
    cases: [
      { name: "bare handler", run: repeat(() => handler), check: present },
      { name: "API key and roles", run: run({ "x-api-key": Redacted.value(key) }), check: present },
      { name: "bearer token seen before and roles", run: run({ authorization: `Bearer ${token}` }), check: present },
      { name: "authenticated by the edge, roles", run: repeat(() => known), check: present }
    ]
  }
}

export default async (): Promise<ReadonlyArray<Group>> => [
  await apiKeys(),
  ...await tokens(),
  await decisions(),
  await stage()
]
