// Whoever has an IPv6 address mostly has 2^64 of them, so a limit by the whole address would limit nobody.

const group = /^[0-9a-f]{1,4}$/i
const dotted = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/

/**
 * The network whose callers count as one peer: the first 64 bits of an IPv6 address, the IPv4 address within a mapped
 * one, and whatever is no IPv6 address as it is.
 */
export const peerNetwork = (peer: string): string => {
  if (!peer.includes(":")) return peer
  const groups = groupsOf(peer.replace(/%.*$/s, ""))
  if (groups === undefined) return peer
  if (groups.slice(0, 5).every((value) => value === 0) && groups[5] === 0xffff) {
    return groups.slice(6).map((value) => `${value >> 8}.${value & 255}`).join(".")
  }
  return `${groups.slice(0, 4).map((value) => value.toString(16)).join(":")}::/64`
}

const groupsOf = (address: string): ReadonlyArray<number> | undefined => {
  const halves = address.split("::")
  if (halves.length > 2) return undefined
  const head = numbersOf(halves[0]!, halves.length === 1)
  const tail = halves.length === 1 ? [] : numbersOf(halves[1]!, true)
  if (head === undefined || tail === undefined) return undefined
  const missing = 8 - head.length - tail.length
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined
  return [...head, ...Array.from({ length: missing }, () => 0), ...tail]
}

const numbersOf = (text: string, isEnd: boolean): ReadonlyArray<number> | undefined => {
  if (text === "") return []
  const parts = text.split(":")
  const numbers: Array<number> = []
  for (let i = 0; i < parts.length; i++) {
    const part = parts[i]!
    const bytes = isEnd && i === parts.length - 1 ? dotted.exec(part)?.slice(1).map(Number) : undefined
    if (bytes !== undefined && bytes.every((byte) => byte < 256)) {
      numbers.push(bytes[0]! * 256 + bytes[1]!, bytes[2]! * 256 + bytes[3]!)
    } else if (group.test(part)) numbers.push(Number.parseInt(part, 16))
    else return undefined
  }
  return numbers
}
