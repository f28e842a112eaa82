/**
 * Deadlines of calls that run, kept so that a call pays for a list entry and not for a timer.
 *
 * All entries of a list have the same time to live, so the first in is the first due and one look at it is enough. One
 * timer of the host serves all lists. It looks at least once a second, which lets an idle program keep no timer for
 * longer than that, and lets deadlines lie as far away as they like. While nothing is waited for it does not keep the
 * process alive.
 *
 * This is for the host's own clock, and for hosts whose timers belong to the program. Under any other `Clock`, and where
 * timers belong to a request (Cloudflare Workers drops them with it) or to a page, each call sleeps by itself.
 *
 * @since 0.1.0
 */
import type * as Clock from "effect/Clock"
import { hostClock, monotonicMillisOf } from "../../internal/monotonic.ts"

const ownsTimers = /^(?:Node\.js|Bun|Deno)\//.test(globalThis.navigator?.userAgent ?? "")

/** @internal Says whether deadlines by that clock may be put into a list. */
export const keepsDeadlines = (clock: Clock.Clock): boolean => ownsTimers && clock === hostClock

const longestSleepMillis = 1000

/** Deno's timers are numbers, which have neither. */
interface HostTimer {
  readonly ref?: () => unknown
  readonly unref?: () => unknown
}

/** @internal */
export interface Entry {
  /** On the monotonic clock, in milliseconds. Set as long as the entry is in a list. */
  deadline: number | undefined
  previous: Entry | undefined
  next: Entry | undefined
  /** Called once when the time is up, after the entry has left its list. */
  expire(): void
}

/** @internal */
export class DeadlineList {
  first: Entry | undefined = undefined
  #last: Entry | undefined = undefined
  isWatched = false

  /** Adds an entry whose deadline is not before that of any other in the list. */
  push(entry: Entry): void {
    entry.previous = this.#last
    if (this.#last === undefined) this.first = entry
    else this.#last.next = entry
    this.#last = entry
    watch(this, entry.deadline!)
  }

  remove(entry: Entry): void {
    if (entry.previous === undefined) this.first = entry.next
    else entry.previous.next = entry.next
    if (entry.next === undefined) this.#last = entry.previous
    else entry.next.previous = entry.previous
    entry.previous = undefined
    entry.next = undefined
    unwatch()
  }
}

// One watcher for the program: the host has one clock and its timers are what is dear.
const lists: Array<DeadlineList> = []
let entries = 0
let timer: HostTimer | undefined = undefined
let timerAt = Infinity
let isLooking = false

const watch = (list: DeadlineList, deadline: number): void => {
  entries += 1
  if (!list.isWatched) {
    list.isWatched = true
    lists.push(list)
  }
  if (isLooking) return
  if (timer === undefined) arm(deadline, monotonicMillisOf(hostClock))
  else if (deadline < timerAt) {
    clearTimeout(timer as ReturnType<typeof setTimeout>)
    arm(deadline, monotonicMillisOf(hostClock))
  } else if (entries === 1) timer.ref?.()
}

const unwatch = (): void => {
  entries -= 1
  if (entries > 0 || timer === undefined) return
  if (timer.unref !== undefined) {
    timer.unref()
  } else {
    clearTimeout(timer as ReturnType<typeof setTimeout>)
    timer = undefined
  }
}

const arm = (deadline: number, from: number): void => {
  const delay = Math.min(Math.max(0, deadline - from), longestSleepMillis)
  timerAt = from + delay
  timer = setTimeout(look, Math.ceil(delay)) as HostTimer
}

const look = (): void => {
  timer = undefined
  isLooking = true
  let earliest = Infinity
  const time = monotonicMillisOf(hostClock)
  try {
    for (let i = lists.length - 1; i >= 0; i--) {
      const list = lists[i]!
      for (let entry = list.first; entry !== undefined && entry.deadline! <= time; entry = list.first) {
        list.remove(entry)
        entry.expire()
      }
    }
  } finally {
    isLooking = false
    for (let i = lists.length - 1; i >= 0; i--) {
      const list = lists[i]!
      if (list.first !== undefined) earliest = Math.min(earliest, list.first.deadline!)
      else {
        list.isWatched = false
        lists[i] = lists[lists.length - 1]!
        lists.length -= 1
      }
    }
    if (earliest !== Infinity) arm(earliest, time)
  }
}
