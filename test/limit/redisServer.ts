import { Effect } from "effect"
import { LocalRedis } from "../support/redis.ts"

/** A Redis of a test's own, to be paused and killed. */
export interface RedisServer {
  readonly url: string
  readonly pause: () => void
  readonly resume: () => void
  readonly kill: () => Promise<void>
  readonly start: () => Promise<void>
}

/** Starts a server that ends with the scope. */
export const redisServer = Effect.acquireRelease(
  Effect.promise(async (): Promise<RedisServer> => {
    const redis = await LocalRedis.started()
    return {
      url: redis.url,
      pause: () => redis.signal("SIGSTOP"),
      resume: () => redis.signal("SIGCONT"),
      kill: () => redis.kill(),
      start: () => redis.start()
    }
  }),
  (server) => Effect.promise(() => server.kill())
)

/** Lets real time go by, whatever the clock of the test says. */
export const realSleep = (millis: number): Effect.Effect<void> =>
  Effect.promise(() => new Promise((resolve) => setTimeout(resolve, millis)))
