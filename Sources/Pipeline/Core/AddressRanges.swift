/// A set of addresses as the data path asks for it: sorted ranges that neither overlap nor touch, searched by halving.
/// Same ownership as ``FrozenArray``.
package struct AddressRanges: Sendable {
    @usableFromInline let ranges: FrozenArray<ClosedRange<IPAddress>>

    /// IPv4 prefixes lie in the IPv4-mapped space, so `::/0` holds every address of both families.
    package init(_ prefixes: some Collection<Prefix>) {
        var merged: [ClosedRange<IPAddress>] = []
        for prefix in prefixes.sorted(by: { $0.first < $1.first }) {
            if let last = merged.last, last.upperBound.touches(prefix.first) {
                merged[merged.count - 1] = last.lowerBound...max(last.upperBound, prefix.last)
            } else {
                merged.append(prefix.first...prefix.last)
            }
        }
        ranges = FrozenArray(merged)
    }

    /// How many ranges there are.
    package var count: Int { ranges.count }

    @inlinable package func contains(_ address: IPAddress) -> Bool {
        var low = 0
        var high = ranges.count
        while low < high {
            let middle = low + (high - low) / 2
            let range = ranges[middle]
            if address < range.lowerBound {
                high = middle
            } else if address > range.upperBound {
                low = middle + 1
            } else {
                return true
            }
        }
        return false
    }

    package func deallocate() { ranges.deallocate() }
}

extension IPAddress {
    /// True if `other` is at most the next address after this one.
    fileprivate func touches(_ other: IPAddress) -> Bool {
        if other <= self { return true }
        let (low, carry) = self.low.addingReportingOverflow(1)
        let (high, overflow) = self.high.addingReportingOverflow(carry ? 1 : 0)
        return !overflow && other == IPAddress(high: high, low: low)
    }
}
