import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Layer } from "effect"
import { ToolMeta } from "effect-toolops"
import { Authorizer, Identity, Rbac } from "effect-toolops/auth"

const toolOf = (id: string, scopes: ReadonlyArray<string> = []) => {
  const [namespace, name] = id.includes(":") ? id.split(":") as [string, string] : [undefined, id]
  return ToolMeta.make({ namespace, name, scopes })
}
const held = (...roles: ReadonlyArray<string>) => Identity.make({ principal: "ada", roles })

const decide = (rbac: Authorizer.Service, identity: Identity.Identity, tool: string, action = "call") =>
  Effect.runSync(rbac.authorize({ identity, tool: toolOf(tool), action, input: undefined }))
const allows = (rbac: Authorizer.Service, identity: Identity.Identity, tool: string, action = "call") =>
  decide(rbac, identity, tool, action).allow

const of = (roles: Readonly<Record<string, Rbac.Role>>, defaultRole?: string) => Rbac.make({ roles, defaultRole })

describe("Rbac", () => {
  describe("a grant", () => {
    it("needs a tool and an action", () => {
      const rbac = of({
        reader: { allowedTools: ["github:*"], allowedActions: ["list"] },
        tools: { allowedTools: ["github:*"] },
        actions: { allowedActions: ["call"] },
        both: { inherits: ["tools", "actions"] }
      })
      assert.isTrue(allows(rbac, held("reader"), "github:search", "list"))
      assert.isFalse(allows(rbac, held("reader"), "github:search", "call"))
      for (const role of ["tools", "actions", "both"]) {
        assert.isFalse(allows(rbac, held(role), "github:search"), role)
      }
      assert.isFalse(allows(rbac, held("tools", "actions"), "github:search"))
    })

    it("may be a permission, with and without its prefix", () => {
      const rbac = of({
        a: { permissions: ["github:search:call"] },
        b: { permissions: ["tool:github:search:call"] },
        c: { permissions: ["github:*:call"] },
        d: { permissions: ["echo:call"] },
        e: { permissions: ["tool:echo:*"] },
        f: { permissions: ["*:list"] },
        g: { permissions: ["tool:tool:echo:call"] }
      })
      for (const role of ["a", "b", "c"]) {
        assert.isTrue(allows(rbac, held(role), "github:search"), role)
        assert.isFalse(allows(rbac, held(role), "github:search", "list"), role)
        assert.isFalse(allows(rbac, held(role), "echo"), role)
      }
      assert.isTrue(allows(rbac, held("d"), "echo"))
      assert.isTrue(allows(rbac, held("e"), "echo", "anything"))
      assert.isFalse(allows(rbac, held("e"), "tool:echo"))
      assert.isTrue(allows(rbac, held("g"), "tool:echo"))
      assert.isTrue(allows(rbac, held("f"), "github:search", "list"))
      assert.isFalse(allows(rbac, held("f"), "github:search"))
    })

    it("is worth nothing to a role that is not in the policy, and to none at all", () => {
      const rbac = of({ admin: { permissions: ["*:*"] } })
      for (const roles of [[], ["root"], ["Admin"], ["admin "], [""], ["__proto__"], ["constructor"], ["admın"]]) {
        assert.isFalse(allows(rbac, held(...roles), "echo"), JSON.stringify(roles))
      }
      assert.isTrue(allows(rbac, held("root", "admin"), "echo"))
    })

    it("is not to be had from what every object inherits", () => {
      const prototype = Object.prototype as unknown as { permissions?: ReadonlyArray<string> }
      Object.defineProperty(prototype, "permissions", { value: ["*:*"], configurable: true })
      try {
        assert.isFalse(allows(of({ a: {} }), held("a"), "echo"))
      } finally {
        delete prototype.permissions
      }
      // A role may be called anything that JSON can say.
      const named = of(JSON.parse("{\"__proto__\":{\"permissions\":[\"echo:call\"]}}"))
      assert.isTrue(allows(named, held("__proto__"), "echo"))
      assert.isFalse(allows(named, held("constructor"), "echo"))
    })

    it("may be for every tool, and for every tool of a namespace called tool", () => {
      const rbac = of({ a: { permissions: ["tool:tool:*:call"] }, b: { permissions: ["tool:*:call"] } })
      assert.isTrue(allows(rbac, held("a"), "tool:echo"))
      assert.isFalse(allows(rbac, held("a"), "github:search"))
      assert.isTrue(allows(rbac, held("b"), "github:search"))
    })

    it("reaches names exactly", () => {
      const rbac = of({ a: { permissions: ["github:search:call", "echo:call", "files:*:call"] } })
      for (
        const tool of [
          "github:search2",
          "github:searc",
          "github:Search",
          "Github:search",
          "github2:search",
          "search",
          "github",
          "Echo",
          "echo2",
          "x:echo",
          "echo:call",
          "files2:read",
          "files",
          "file:s"
        ]
      ) assert.isFalse(allows(rbac, held("a"), tool), tool)
      for (const action of ["Call", "call ", "cal", "", "*", "call:call"]) {
        assert.isFalse(allows(rbac, held("a"), "echo", action), action)
      }
      assert.isTrue(allows(rbac, held("a"), "files:read"))
    })
  })

  describe("a denial", () => {
    it("wins over every grant, of any held or inherited role, in any order", () => {
      const rbac = of({
        admin: { permissions: ["*:*"] },
        limited: { deniedTools: ["github:delete"] },
        noGithub: { deniedTools: ["github:*"] },
        nothing: { deniedTools: ["*"] },
        heir: { inherits: ["limited"], permissions: ["github:delete:call"] },
        grandchild: { inherits: ["admin", "heir"] }
      })
      for (
        const roles of [
          ["admin", "limited"],
          ["limited", "admin"],
          ["admin", "heir"],
          ["heir"],
          ["grandchild"],
          ["admin", "noGithub"],
          ["admin", "nothing"],
          ["unknown", "admin", "limited"]
        ]
      ) assert.isFalse(allows(rbac, held(...roles), "github:delete"), roles.join())
      assert.isTrue(allows(rbac, held("admin", "limited"), "github:search"))
      assert.isTrue(allows(rbac, held("grandchild"), "github:search"))
      assert.isFalse(allows(rbac, held("admin", "noGithub"), "github:search"))
      assert.isTrue(allows(rbac, held("admin", "noGithub"), "echo"))
    })
  })

  describe("the default role", () => {
    it("is for those without any role, and for nobody else", () => {
      const rbac = of({ guest: { permissions: ["echo:call"] }, reader: {} }, "guest")
      assert.isTrue(allows(rbac, held(), "echo"))
      assert.isTrue(allows(rbac, Identity.anonymous, "echo"))
      assert.isFalse(allows(rbac, held("reader"), "echo"))
      assert.isFalse(allows(rbac, held("unknown"), "echo"))
    })
  })

  describe("the rule", () => {
    it("is the one that decides", () => {
      const rbac = of({
        base: { deniedTools: ["github:*"], permissions: ["echo:call"] },
        heir: { inherits: ["base"], allowedTools: ["*"], allowedActions: ["list"] }
      })
      assert.strictEqual(decide(rbac, held("heir"), "echo").rule, "role base: permission echo:call")
      assert.strictEqual(decide(rbac, held("heir"), "echo", "list").rule, "role heir: allowed tool *, action list")
      assert.strictEqual(decide(rbac, held("heir"), "github:x", "list").rule, "role base: denied tool github:*")
      assert.strictEqual(decide(rbac, held("heir"), "echo", "read").rule, "no rule grants it")
    })
  })

  describe("the scopes of a tool", () => {
    const rbac = (options: Partial<Rbac.Options> = {}) =>
      Rbac.make({ roles: { user: { permissions: ["*:call"] } }, defaultRole: "user", ...options })
    const ask = (rbac: Authorizer.Service, scopes: ReadonlyArray<string>, needed: ReadonlyArray<string>) =>
      Effect.runSync(rbac.authorize({
        identity: Identity.make({ principal: "ada", scopes }),
        tool: toolOf("echo", needed),
        action: "call",
        input: undefined
      }))

    it("must all be held, and do not stand in for a grant", () => {
      assert.isTrue(ask(rbac(), ["b", "a"], ["a", "b"]).allow)
      const short = ask(rbac(), ["a"], ["a", "b", "c"])
      assert.isFalse(short.allow)
      assert.deepStrictEqual(short.missingScopes, ["b", "c"])
      const none = Rbac.make({ roles: {} })
      assert.isFalse(ask(none, ["a"], ["a"]).allow)
      assert.deepStrictEqual(ask(none, [], ["a"]).missingScopes, [])
    })

    it("may follow a hierarchy, over steps and in circles", () => {
      const scopeHierarchy = { admin: ["write"], write: ["read"], read: ["admin2"], admin2: ["read"] }
      assert.isTrue(ask(rbac({ scopeHierarchy }), ["admin"], ["read", "write", "admin"]).allow)
      assert.isFalse(ask(rbac({ scopeHierarchy }), ["write"], ["admin"]).allow)
      assert.isFalse(ask(rbac({ scopeHierarchy }), ["adm"], ["read"]).allow)
      assert.isFalse(ask(rbac(), ["admin"], ["read"]).allow)
    })
  })

  describe("shadow mode", () => {
    it("lets through and says what would have been", () => {
      const rbac = Rbac.make({ mode: "shadow", roles: { a: { deniedTools: ["echo"], permissions: ["*:list"] } } })
      assert.deepInclude(decide(rbac, held("a"), "echo"), {
        allow: true,
        wouldRefuse: true,
        rule: "shadow: role a: denied tool echo"
      })
      assert.deepInclude(decide(rbac, held("a"), "other", "list"), { allow: true, wouldRefuse: false })
    })
  })

  describe("properties", () => {
    const random = (() => {
      let seed = 99
      return () => (seed = (seed * 48_271) % 2_147_483_647) / 2_147_483_647
    })()
    const ids = ["echo", "github:search", "github:delete", "files:read"]
    const patterns = ["*", "github:*", "files:*", ...ids]
    const some = <A>(list: ReadonlyArray<A>, chance: number) => list.filter(() => random() < chance)
    const policy = (): Record<string, Rbac.Role> =>
      Object.fromEntries(["a", "b", "c"].map((name, i) => [name, {
        inherits: some(["b", "c"].slice(i), 0.4),
        allowedTools: some(patterns, 0.3),
        allowedActions: some(["call", "list", "*"], 0.4),
        deniedTools: some(patterns, 0.1),
        permissions: some(patterns, 0.2).map((pattern) => `${pattern}:call`)
      }]))
    const answers = (roles: Record<string, Rbac.Role>, name: (role: string) => string = (role) => role) => {
      const rbac = of(roles)
      return [["a"], ["b"], ["c"], ["a", "b"], ["c", "a"], ["a", "b", "c"]].flatMap((set) =>
        ids.flatMap((id) => ["call", "list"].map((action) => allows(rbac, held(...set.map(name)), id, action)))
      )
    }

    it("one more denial never opens anything", () => {
      for (let i = 0; i < 300; i++) {
        const roles = policy()
        const before = answers(roles)
        const who = ["a", "b", "c"][Math.floor(random() * 3)]!
        const more = {
          ...roles,
          [who]: { ...roles[who], deniedTools: [...roles[who]!.deniedTools!, patterns[i % patterns.length]!] }
        }
        answers(more).forEach((after, j) => assert.isTrue(before[j] || !after))
      }
    })

    it("order and names do not matter", () => {
      for (let i = 0; i < 300; i++) {
        const roles = policy()
        const before = answers(roles)
        const turned = Object.fromEntries(
          Object.entries(roles).toReversed().map(([name, role]) => [
            name,
            Object.fromEntries(Object.entries(role).toReversed().map(([key, list]) => [key, list.toReversed()]))
          ])
        )
        assert.deepStrictEqual(answers(turned), before)
        const rename = (name: string) => `${name} toString`
        const renamed = Object.fromEntries(
          Object.entries(roles).map(([name, role]) => [rename(name), { ...role, inherits: role.inherits!.map(rename) }])
        )
        assert.deepStrictEqual(answers(renamed, rename), before)
      }
    })
  })

  describe("inheritance", () => {
    it("may be deep and wide", () => {
      const depth = 20_000
      const roles: Record<string, Rbac.Role> = { r0: { permissions: ["echo:call"], deniedTools: ["github:*"] } }
      for (let i = 1; i < depth; i++) roles[`r${i}`] = { inherits: [`r${i - 1}`] }
      roles.wide = { inherits: Array.from({ length: depth }, (_, i) => `r${i}`), permissions: ["*:call"] }
      const rbac = of(roles)
      assert.isTrue(allows(rbac, held(`r${depth - 1}`), "echo"))
      assert.isFalse(allows(rbac, held("wide"), "github:search"))
      assert.isTrue(allows(rbac, held("wide"), "other"))
    })

    it("may reach one role by several ways, or twice", () => {
      const rbac = of({
        base: { permissions: ["echo:call"] },
        left: { inherits: ["base", "base"] },
        right: { inherits: ["base"] },
        top: { inherits: ["left", "right", "base"] }
      })
      assert.isTrue(allows(rbac, held("top"), "echo"))
    })
  })

  describe("refuses at construction", () => {
    const refused: ReadonlyArray<readonly [string, any, RegExp]> = [
      ["an unknown member of a role", { roles: { a: { allow: ["*"] } } }, /unknown option "allow"/],
      ["an unknown option", { roles: {}, default_role: "a" }, /unknown option/],
      ["an unknown inherited role", { roles: { a: { inherits: ["b"] } } }, /"b", which is not a role/],
      ["an inherited member of every object", { roles: { a: { inherits: ["toString"] } } }, /not a role/],
      ["a role that inherits from itself", { roles: { a: { inherits: ["a"] } } }, /inherits from itself/],
      ["a circle", {
        roles: { a: { inherits: ["b"] }, b: { inherits: ["c"] }, c: { inherits: ["a"] } }
      }, /inherits from itself/],
      ["an unknown default role", { roles: {}, defaultRole: "a" }, /defaultRole/],
      ["no roles", {}, /roles must be/],
      ["a text for a list", { roles: { a: { allowedTools: "*" } } }, /array/],
      ["a number in a list", { roles: { a: { deniedTools: [1] } } }, /array of strings/],
      ["a role that is none", { roles: { a: null } }, /must be an object/],
      ["a role that is a list", { roles: { a: [] } }, /must be an object/],
      // As somebody writes it who means a role of that name.
      ["roles behind an object", { roles: { __proto__: { admin: { allowedTools: ["*"] } } } }, /plain/],
      ["members behind a role", { roles: { a: { __proto__: { permissions: ["*:*"] } } } }, /plain/],
      ["roles that are no plain object", { roles: new Map() }, /plain/],
      ["an unknown mode", { roles: {}, mode: "off" }, /mode/],
      ...["git*", "*:search", "github:", ":search", "a:b:c", "", "github:se*", "**", "a b", "github/search"].map(
        (pattern) =>
          [`the tool ${JSON.stringify(pattern)}`, { roles: { a: { deniedTools: [pattern] } } }, /exact tool/] as const
      ),
      ...[
        "call",
        "tool:call",
        "*",
        "a:b:c:d",
        "tool:a:b:c:d",
        ":call",
        "echo:",
        "github:se*:call",
        "echo:call list",
        ""
      ].map(
        (permission) =>
          [
            `the permission ${JSON.stringify(permission)}`,
            { roles: { a: { permissions: [permission] } } },
            /permission|action/
          ] as const
      ),
      ...["ca*", "", "call list", "call:list"].map(
        (action) =>
          [`the action ${JSON.stringify(action)}`, { roles: { a: { allowedActions: [action] } } }, /action/] as const
      )
    ]
    for (const [name, options, message] of refused) {
      it(name, () => {
        assert.throws(() => Rbac.layer(options), message)
      })
    }
  })

  it.effect("takes its roles from configuration", () =>
    Effect.gen(function*() {
      const Roles = Rbac.layerConfig({
        roles: Config.map(Config.String("ROLES"), (text) => JSON.parse(text) as Record<string, Rbac.Role>),
        defaultRole: Config.String("DEFAULT_ROLE")
      })
      const env = { ROLES: JSON.stringify({ guest: { permissions: ["echo:call"] } }), DEFAULT_ROLE: "guest" }
      const rbac = yield* Effect.provide(
        Authorizer.Authorizer,
        Layer.provide(Roles, ConfigProvider.layer(ConfigProvider.fromUnknown(env)))
      )
      assert.isTrue(allows(rbac, held(), "echo"))
    }))
})
