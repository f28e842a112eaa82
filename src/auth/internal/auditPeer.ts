/** The eight groups of an IPv6 address as they are written, or `undefined` for what is none. */
const groupsOf = (address: string): ReadonlyArray<string> | undefined => {
  if (!/^[0-9A-Fa-f:]+(?::(?:\d{1,3}\.){3}\d{1,3})?$/.test(address) || !address.includes(":")) return undefined
  if (!URL.canParse(`http://[${address}]/`)) return undefined
  // In the one form of RFC 5952, and without an IPv4 address at its end.
  const [head = "", tail] = new URL(`http://[${address}]/`).hostname.slice(1, -1).split("::")
  const before = head === "" ? [] : head.split(":")
  const after = tail === undefined || tail === "" ? [] : tail.split(":")
  return [...before, ...Array.from({ length: 8 - before.length - after.length }, () => "0"), ...after]
}

/** Whether it is an IPv6 address. */
export const isIpv6 = (address: string): boolean => groupsOf(address) !== undefined

/** Whether it is an IPv4 address in its usual form. */
export const isIpv4 = (address: string): boolean =>
  /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.|$)){4}$/.test(address) && !address.endsWith(".")

/**
 * Who a peer is taken for: of IPv6 its network, as whoever has one address has the 2^64 of its /64 (RFC 4291, section
 * 2.5.4). An IPv4 address is itself.
 */
export const peerGroup = (peer: string | undefined): string | undefined => {
  const groups = peer === undefined ? undefined : groupsOf(peer)
  if (groups === undefined) return peer
  if (groups.slice(0, 5).every((group) => group === "0") && groups[5] === "ffff") return peer
  return `${groups.slice(0, 4).join(":")}::/64`
}
