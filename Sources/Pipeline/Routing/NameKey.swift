import Pipeline

/// A name or wildcard, as people write it.
struct NameKey: Hashable {
    let kind: KeyKind
    /// Without the mark.
    private let bytes: [UInt8]

    init(_ bytes: Bytes, _ kind: KeyKind) { (self.bytes, self.kind) = (Array(bytes), kind) }

    /// A canonical text, with the mark of a wildcard.
    init(_ whole: String) { (kind, bytes) = KeyKind.split(whole) }

    /// As people write a hostname.
    var whole: String { kind.mark + String(decoding: bytes, as: UTF8.self) }

    func withBytes<Result>(_ body: (Bytes) -> Result) -> Result { bytes.withUnsafeBufferPointer { body($0) } }

    /// The wildcards that could clash with it (R4), whether anybody has them or not; as ``NameBook/linkWildcards()``
    /// has it.
    var patternsAbove: [NameKey] {
        // What stands where others have a name is under none.
        guard kind != .client else { return [] }
        return withBytes { bytes in
            var found: [NameKey] = []
            let _: Void? = NamePatterns.all.first(over: bytes) { suffix, kind in
                let pattern = KeyKind(kind)
                if pattern != self.kind || self.kind == .suffix && suffix.count < bytes.count {
                    found.append(NameKey(suffix, pattern))
                }
                return nil
            }
            return found
        }
    }

    /// True if a name is under this wildcard, so that both would take some connections.
    func isAbove(_ other: Bytes, _ kind: KeyKind) -> Bool {
        let endsAlike = withBytes { mine in
            other.count >= mine.count && sameBytes(Bytes(rebasing: other[(other.count - mine.count)...]), mine)
        }
        return endsAlike && NameKey(other, kind).patternsAbove.contains(self)
    }
}

extension NamePatterns {
    /// Asks for every wildcard that a name could be under.
    fileprivate static let all = NamePatterns(
        hasWildcards: true,
        suffixes: (1...127).reduce(into: LabelCounts()) { $0.insert($1) })
}
