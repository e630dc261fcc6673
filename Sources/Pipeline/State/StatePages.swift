/// Records a page at a time, for who must not take long at once.
extension StateStore {
    /// Some records of a kind, in the order of ids, from behind one on.
    /// - Parameters:
    ///   - id: of the last record of the page before; nil: from the first on.
    ///   - count: of records of the snapshot, 1 or more; what changed among them comes on top.
    /// - Returns: what to go on behind; nil: that was the last page.
    public func page(
        _ kind: UInt8, behind id: [UInt8]?, count: Int,
        _ body: (_ id: UnsafeBufferPointer<UInt8>, _ value: UnsafeRawBufferPointer) -> Void
    ) -> [UInt8]? {
        let all = base.range(kind)
        let start = id.map { firstPlace(in: all, kind, behind: $0) } ?? all.lowerBound
        let range = start..<min(all.upperBound, start + max(1, count))
        let last = range.upperBound < all.upperBound ? base.record(range.upperBound - 1).map { Array($0.id) } : nil
        let changes = changes(of: kind).filter { record in
            (id.map { record.isBehind($0) } ?? true) && (last.map { !record.isBehind($0) } ?? true)
        }
        MergedRecords.forEach(base, range, changes) { body($0.id, $0.value) }
        return last
    }

    private func firstPlace(in range: Range<Int>, _ kind: UInt8, behind id: [UInt8]) -> Int {
        var (low, high) = (range.lowerBound, range.upperBound)
        while low < high {
            let middle = (low + high) / 2
            if base.record(middle)?.isBehind(id) ?? true { high = middle } else { low = middle + 1 }
        }
        return low
    }
}

extension Record {
    fileprivate func isBehind(_ id: [UInt8]) -> Bool { id.withUnsafeBufferPointer { compare(kind, $0) > 0 } }
}
