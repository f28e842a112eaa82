import * as Effect from "effect/Effect"
import type * as Redis from "effect/persistence/Redis"
import type { Take } from "../RateLimitStore.ts"
import { refused, report, shared } from "./buckets.ts"
import type { Debt } from "./owed.ts"

// The two scripts of the Redis store, and how their arguments and answers are written.
//
// A bucket is a string of five numbers: the moment at which it is full again, its span when it was written, the moment of
// writing, the moment since when it has not been full, and how much it has been given back since then, all in
// microseconds, of the server's clock since `epoch`. Counting from there leaves room for fractions of a microsecond in a
// double. The key expires when the bucket is full.
//
// How refunds work is told in `buckets.ts`. There a bucket that is new begins where others have ended; here it notes since
// when it is, and takes from before are given nothing back.
//
// The server's clock is a wall clock. When it has been set back since a bucket was written, the bucket moves back with
// it, so that nobody is locked out for as long as the step was.

const epochSeconds = 1_700_000_000

// Beyond this a sum of microseconds is no longer exact to a fraction of one. A bucket that gets there begins anew, and
// takes of before are given nothing back.
const mostRefunded = 1e14

const clock = `
local t = redis.call('TIME')
local now = (t[1] - ${epochSeconds}) * 1000000 + t[2]
local function read(value)
  if not value then return nil end
  local full, span, written, since, refunded = string.match(value, '^(%S+) (%S+) (%S+) (%S+) (%S+)$')
  full, written, since, refunded = tonumber(full), tonumber(written), tonumber(since), tonumber(refunded)
  if not full or not written or not since or not refunded then return nil end
  if written > now then return full - (written - now), span, since, refunded, true end
  return full, span, since, refunded, false
end
local function write(key, debt, span, since, refunded)
  redis.call('SET', key, string.format('%.3f %s %.0f %.0f %.3f', now + debt, span, now, since, refunded),
    'PX', math.ceil(debt / 1000) + 1)
end
`

// Answers with the wait (-1 for a refusal), the time, and for each bucket its debt (how long until it is full), how much
// too early the take is, and how much has been given back, in whole microseconds.
//
// What a process has granted while it heard nothing may come along, and is charged whatever becomes of the call. Many
// processes may have granted the whole limit each; nobody shall have to wait for all of it, hence the bound.
const consumeLua = `${clock}
local spend, maxWait = ARGV[1] == '1', tonumber(ARGV[2])
local found = redis.call('MGET', unpack(KEYS))
local debts, lates, spans, prices, moved, sinces, refunds = {}, {}, {}, {}, {}, {}, {}
local wait = 0
for i = 1, #KEYS do
  local a = i * 3
  local spanText = ARGV[a]
  local span, price, shadow = tonumber(spanText), tonumber(ARGV[a + 1]), ARGV[a + 2] == '1'
  local debt, since, refunded = 0, now, 0
  local full, was, from, given, back = read(found[i])
  if full and full > now then
    debt = full - now
    if was ~= spanText then debt = debt * span / tonumber(was) end
    moved[i] = back or was ~= spanText
    if not moved[i] and given < ${mostRefunded} then since, refunded = from, given end
  end
  local owed = tonumber(ARGV[#KEYS * 3 + 1 + i * 2] or '0')
  if owed > 0 then
    owed = math.min(owed, tonumber(ARGV[#KEYS * 3 + 2 + i * 2]) - now)
    local charged = math.min(debt + owed, 2 * span)
    if charged > debt then debt, moved[i] = charged, true end
  end
  local late = price < 0 and 1e15 or debt + price - span
  if late <= 1 then late = 0 end
  if late > wait and not shadow then wait = late end
  debts[i], lates[i], spans[i], prices[i], sinces[i], refunds[i] = debt, late, spanText, price, since, refunded
end
local granted = wait <= maxWait
local answer = { granted and math.ceil(wait) or -1, now }
for i = 1, #KEYS do
  local shadow = ARGV[i * 3 + 2] == '1'
  if granted and spend and prices[i] > 0 and not (shadow and lates[i] > 0) then
    debts[i] = debts[i] + prices[i]
    write(KEYS[i], debts[i], spans[i], sinces[i], refunds[i])
  elseif moved[i] then
    write(KEYS[i], debts[i], spans[i], sinces[i], refunds[i])
  end
  answer[#answer + 1] = math.floor(debts[i])
  answer[#answer + 1] = math.ceil(lates[i])
  answer[#answer + 1] = math.floor(refunds[i])
end
return answer
`

// What time has given back already is not given back again, nor are tokens of a clock that has been set back, or of
// another shape: a bucket whose shape has changed counts as new. Answers are in whole microseconds, so a few of them are
// no difference.
const refundLua = `${clock}
local count = 0
for i = 1, #KEYS do
  local a = i * 3 - 2
  local full, span, since, refunded, back = read(redis.call('GET', KEYS[i]))
  local from = tonumber(ARGV[a + 2])
  if full and not back and since <= from and from <= now then
    local paid = tonumber(ARGV[a + 1]) - refunded
    local amount = math.min(tonumber(ARGV[a]), paid - now)
    if amount > 0 then
      count = count + 1
      local debt = full - amount - now
      if paid < full - 5 then refunded = refunded + amount end
      if debt > 5 then write(KEYS[i], debt, span, since, refunded) else redis.call('DEL', KEYS[i]) end
    end
  end
end
return count
`

const micros = (millis: number): string => String(millis * 1000)

// A take that can never be granted is marked by a negative price.
const price = (take: Take): string =>
  take.cost > take.shape.burst ? "-1" : micros(take.cost * take.shape.intervalMillis)

/** A script as it is sent: `EVALSHA <sha> <arguments>`. */
export interface Script {
  readonly lua: string
  sha: string | undefined
}

/** Decides all takes of a call, and spends them when the first argument says so. One per store. */
export const consumeScript = (): Script => ({ lua: consumeLua, sha: undefined })

/** Gives back what the takes have spent. One per store. */
export const refundScript = (): Script => ({ lua: refundLua, sha: undefined })

/**
 * What follows the name of `consumeScript`. `owed` is what the server does not know yet; `ahead` is by how much its clock
 * is ahead of the one in which that is told.
 */
export const consumeArguments = (
  prefix: string,
  takes: ReadonlyArray<Take>,
  maxWaitMillis: number,
  spend: boolean,
  owed: ReadonlyArray<Debt | undefined> | undefined,
  ahead: number
): Array<string> => {
  const given = keysOf(prefix, takes)
  given.push(spend ? "1" : "0", micros(maxWaitMillis))
  for (const take of takes) given.push(micros(take.shape.spanMillis), price(take), take.shape.shadow ? "1" : "0")
  if (owed !== undefined) {
    for (const debt of owed) given.push(micros(debt?.amount ?? 0), micros((debt?.until ?? 0) + ahead))
  }
  return given
}

/** By how much the server's clock is ahead of `now`. */
export const aheadOf = (reply: ReadonlyArray<number>, now: number): number => reply[1]! / 1000 - now

/** What follows the name of `refundScript`. */
export const refundArguments = (prefix: string, takes: ReadonlyArray<Take>): Array<string> => {
  const given = keysOf(prefix, takes)
  for (const take of takes) {
    given.push(price(take), String(take.spentUntil), take.spentFrom)
  }
  return given
}

const keysOf = (prefix: string, takes: ReadonlyArray<Take>): Array<string> => {
  const keys = [String(takes.length)]
  for (const take of takes) keys.push(prefix + take.key.text)
  return keys
}

/**
 * Runs a script by its digest. `Redis.eval` does the same through a cache of all scripts of the program, which costs a
 * tenth of the round trip.
 */
export const run = (
  redis: Redis.Redis["Service"],
  script: Script,
  given: ReadonlyArray<string>
): Effect.Effect<unknown, Redis.RedisError> =>
  script.sha === undefined
    ? Effect.flatMap(redis.send<string>("SCRIPT", "LOAD", script.lua), (sha) => {
      script.sha = sha
      return redis.send("EVALSHA", sha, ...given)
    })
    : Effect.catch(
      redis.send("EVALSHA", script.sha, ...given),
      // A server that was started anew does not know the script; it learns it with this.
      (error) =>
        String(error.cause).includes("NOSCRIPT") ? redis.send("EVAL", script.lua, ...given) : Effect.fail(error)
    )

/** Checks an answer of `consumeScript`, which comes from outside this process. */
export const readReply = (reply: unknown, takes: number): ReadonlyArray<number> | undefined =>
  Array.isArray(reply) && reply.length === 2 + 3 * takes && reply.every((value) => Number.isSafeInteger(value))
    ? reply
    : undefined

/** Whether the tokens of a take came from Redis: it notes when. */
export const isSpentThere = (take: Take): boolean =>
  take.spentUntil !== 0 && take.spentFrom !== "" && take.spentFrom !== shared

/** Writes a checked answer into the takes and returns the wait in milliseconds. */
export const settle = (
  takes: ReadonlyArray<Take>,
  reply: ReadonlyArray<number>,
  spend: boolean
): number => {
  const [wait = refused, now = 0] = reply
  for (let i = 0; i < takes.length; i++) {
    const take = takes[i]!
    const debt = reply[2 + 3 * i]!
    const late = reply[3 + 3 * i]!
    report(take, debt / 1000)
    const isSpent = spend && wait !== refused && take.cost > 0 && (late === 0 || !take.shape.shadow)
    take.allowed = late === 0 || isSpent
    take.retryAfterMillis = isSpent ? 0 : take.cost > take.shape.burst ? Infinity : Math.ceil(late / 1000)
    if (isSpent) {
      take.spentUntil = now + debt + reply[4 + 3 * i]!
      take.spentFrom = String(now)
    }
  }
  return wait === refused ? refused : Math.ceil(wait / 1000)
}
