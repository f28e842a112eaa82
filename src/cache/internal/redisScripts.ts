import * as Redis from "effect/persistence/Redis"

// Keys below the prefix: `e:<key>` an entry, `f:<key>` the lease of a flight, `l:<label>` the keys with a label, scored
// by when they end, `i:<label>` when the label was last invalidated, `floor` when everything was.
//
// An entry is `1 <freshUntil> <keepUntil> <key>{\t<label>}\n<text>`, times in milliseconds of the server. Marks are microseconds of
// the server's clock, so they survive its restart, which a counter would not.

const now = `
local t = redis.call('TIME')
local micros = t[1] * 1000000 + t[2]
local now = math.floor(micros / 1000)
local function int(n) return string.format('%.0f', n) end
`

/** How long an invalidation is remembered, and so the longest that an execution may take and still be kept back. */
const memoryMillis = 24 * 60 * 60 * 1000

/** 1 with the lead, 0 when there is a fresh entry, 2 when somebody else has the lead; and the server's time. */
export const lead = Redis.script(
  (entryKey: string, leaseKey: string, token: string, leaseMillis: number) => [entryKey, leaseKey, token, leaseMillis],
  {
    numberOfKeys: 2,
    lua: `${now}
local fresh = string.match(redis.call('GETRANGE', KEYS[1], 0, 40), '^1 (%d+) ')
if fresh and tonumber(fresh) > now then return {0, int(micros)} end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return {1, int(micros)} end
return {2, int(micros)}`
  }
).withReturnType<[number, string]>()

export const release = Redis.script((leaseKey: string, token: string) => [leaseKey, token], {
  numberOfKeys: 1,
  lua: `if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end`
})

/** Renews leases that are still ours. */
export const renew = Redis.script(
  (leaseMillis: number, leases: ReadonlyArray<readonly [leaseKey: string, token: string]>) => [
    ...leases.map(([key]) => key),
    leaseMillis,
    ...leases.map(([, token]) => token)
  ],
  {
    numberOfKeys: (_, leases) => leases.length,
    lua: `for i, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[i + 1] then redis.call('PEXPIRE', key, ARGV[1]) end
end`
  }
)

/** Stores an entry and its labels, which end together. Purges from the labels what has ended. */
export const store = Redis.script(
  (
    entryKey: string,
    prefix: string,
    key: string,
    text: string,
    freshMillis: number,
    keepMillis: number,
    mark: string,
    labels: ReadonlyArray<string>
  ) => [entryKey, prefix, key, text, freshMillis, keepMillis, mark, ...labels],
  {
    numberOfKeys: 1,
    lua: `${now}
local P, key = ARGV[1], ARGV[2]
if ARGV[6] ~= '' then
  local mark = tonumber(ARGV[6])
  local floor = redis.call('GET', P .. 'floor')
  if floor and tonumber(floor) >= mark then return int(micros) end
  for i = 7, #ARGV do
    local at = redis.call('GET', P .. 'i:' .. ARGV[i])
    if at and tonumber(at) >= mark then return int(micros) end
  end
end
local keep = int(now + ARGV[5])
local head = '1 ' .. int(now + ARGV[4]) .. ' ' .. keep .. ' ' .. key
for i = 7, #ARGV do head = head .. '\\t' .. ARGV[i] end
redis.call('SET', KEYS[1], head .. '\\n' .. ARGV[3], 'PX', ARGV[5])
for i = 6, #ARGV do
  local label = P .. 'l:' .. (i == 6 and 'all' or ARGV[i])
  redis.call('ZREMRANGEBYSCORE', label, '-inf', int(now))
  redis.call('ZADD', label, keep, key)
  if redis.call('PTTL', label) < tonumber(ARGV[5]) then redis.call('PEXPIRE', label, ARGV[5]) end
end
return int(micros)`
  }
).withReturnType<string>()

/** Remembers that labels were invalidated and tells everybody. */
export const mark = Redis.script(
  (prefix: string, message: string, labels: ReadonlyArray<string>) => [`${prefix}floor`, prefix, message, ...labels],
  {
    numberOfKeys: 1,
    lua: `${now}
if #ARGV == 2 then redis.call('SET', KEYS[1], int(micros)) end
for i = 3, #ARGV do redis.call('SET', ARGV[1] .. 'i:' .. ARGV[i], int(micros), 'PX', ${memoryMillis}) end
redis.call('PUBLISH', ARGV[1] .. 'bus', ARGV[2])`
  }
)

/** Deletes up to 1,000 entries with a label and says how many it looked at. */
export const drain = Redis.script((prefix: string, label: string) => [`${prefix}l:${label}`, prefix], {
  numberOfKeys: 1,
  lua: `local keys = redis.call('ZRANGE', KEYS[1], 0, 999)
for _, key in ipairs(keys) do
  redis.call('UNLINK', ARGV[1] .. 'e:' .. key)
  redis.call('ZREM', ARGV[1] .. 'l:all', key)
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, 999)
return #keys`
}).withReturnType<number>()
