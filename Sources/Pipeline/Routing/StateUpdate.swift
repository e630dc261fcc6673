import Pipeline

/// A document or a change of desired state, split into its objects (docs/STATE.md). Each is the JSON text that it came
/// as; nothing in it was judged but its id.
///
/// Ownership: it refers to the bytes that it was read from. They must stay as they are while the update is used;
/// `owner`, if one was given, keeps them. Threading: immutable, for any thread.
public struct StateUpdate: @unchecked Sendable {
    public enum Form: Sendable, Equatable {
        /// All that there is: what it does not have is removed.
        case document
        /// What changes.
        /// - Parameter base: the revision that it stands on; nil: it says none.
        case change(base: UInt64?)
    }

    /// What a reader takes.
    public enum Acceptance: Sendable {
        case document, change, either
    }

    public let form: Form
    public let revision: UInt64?
    /// The author, for the journal; empty: none is given.
    public let actor: String
    /// The author's own name for this update, for the journal; empty: none is given.
    public let request: String
    /// The words that a reader must know; all are known.
    public let needs: [String]
    /// There was something in its lists that is no object with an id.
    public let hasUnusable: Bool
    /// In order.
    private let entries: [StateEntry]
    private let deleted: [StateEntry]
    private let source: StateTexts
    /// What is put in place of what it says, and what besides; ids of these are not deleted.
    private var amendments: [StateKind: [[UInt8]: [UInt8]]] = [:]

    init(
        _ form: Form, _ header: StateHeader, puts: [StateEntry], deleted: [StateEntry], _ source: StateTexts
    ) {
        self.form = form
        revision = header.revision
        actor = header.actor
        request = header.request
        needs = header.needs
        hasUnusable = header.hasUnusable
        entries = puts
        self.deleted = deleted
        self.source = source
    }

    /// Nothing is put or deleted, and nothing was there that couldn't be used.
    public var isEmpty: Bool { entries.isEmpty && deleted.isEmpty && !hasUnusable }

    /// The objects to put: by kind, then by id bytewise, each id once. `text` is the object. Several objects of one id
    /// are joined by commas, so that a list of these texts is judged as the original
    /// would be. An object that gives itself several ids stands under each (at most four). What it was amended by and
    /// does not have comes last.
    ///
    /// - Parameter body: gets bytes that are valid for the call.
    public func forEachPut<Failure>(
        _ body: (StateKind, _ id: UnsafeBufferPointer<UInt8>, _ text: UnsafeRawBufferPointer) throws(Failure) -> Void
    ) throws(Failure) {
        try forEachEntry { kind, id, text throws(Failure) in
            guard !amendments.isEmpty, let other = amendments[kind]?[Array(id)] else { return try body(kind, id, text) }
            try StateUpdate.put(kind, id, other, body)
        }
        for (kind, texts) in amendments {
            for (id, text) in texts {
                try id.withUnsafeBufferPointer { id throws(Failure) in
                    if !isPut(kind, id) { try StateUpdate.put(kind, id, text, body) }
                }
            }
        }
    }

    private static func put<Failure>(
        _ kind: StateKind, _ id: UnsafeBufferPointer<UInt8>, _ text: [UInt8],
        _ body: (StateKind, UnsafeBufferPointer<UInt8>, UnsafeRawBufferPointer) throws(Failure) -> Void
    ) throws(Failure) {
        let result = text.withUnsafeBytes { text -> Result<Void, Failure> in
            do throws(Failure) { return .success(try body(kind, id, text)) } catch { return .failure(error) }
        }
        try result.get()
    }

    private func forEachEntry<Failure>(
        _ body: (StateKind, _ id: UnsafeBufferPointer<UInt8>, _ text: UnsafeRawBufferPointer) throws(Failure) -> Void
    ) throws(Failure) {
        var first = 0
        while first < entries.count {
            var end = first + 1
            while end < entries.count, source.isSameID(entries[first], entries[end]) { end += 1 }
            let entry = entries[first]
            if end == first + 1 {
                try body(entry.kind, source.id(entry), source.text(entry))
            } else {
                try StateUpdate.put(entry.kind, source.id(entry), join(entries[first..<end]), body)
            }
            first = end
        }
    }

    /// Objects of this id alone in the order of their places. One with several ids is ambiguous, and quarantined however
    /// often it is there: each such text once, and last, so that texts stay the same as they are written and read again.
    private func join(_ twins: ArraySlice<StateEntry>) -> [UInt8] {
        var joined: [UInt8] = []
        func append(_ text: UnsafeRawBufferPointer) {
            if !joined.isEmpty { joined.append(UInt8(ascii: ",")) }
            joined.append(contentsOf: text)
        }
        var ambiguous: [UnsafeRawBufferPointer] = []
        for twin in twins {
            if twin.isAmbiguous { ambiguous.append(source.text(twin)) } else { append(source.text(twin)) }
        }
        ambiguous.sort { $0.lexicographicallyPrecedes($1) }
        for (index, text) in ambiguous.enumerated() where index == 0 || !text.elementsEqual(ambiguous[index - 1]) {
            append(text)
        }
        return joined
    }

    /// True if it puts such an object.
    public func has(_ kind: StateKind, _ id: UnsafeBufferPointer<UInt8>) -> Bool {
        isPut(kind, id) || amendments[kind]?[Array(id)] != nil
    }

    private func isPut(_ kind: StateKind, _ id: UnsafeBufferPointer<UInt8>) -> Bool {
        let place = place(kind, id)
        return place < entries.count && source.order(of: entries[place], kind, id) == 0
    }

    /// Of the first entry that is not before this id.
    private func place(_ kind: StateKind, _ id: UnsafeBufferPointer<UInt8>) -> Int {
        var (low, high) = (0, entries.count)
        while low < high {
            let middle = (low + high) / 2
            if source.order(of: entries[middle], kind, id) < 0 { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// The object that it puts under an id; nil: none.
    func text(_ kind: StateKind, _ id: [UInt8]) -> [UInt8]? {
        if let other = amendments[kind]?[id] { return other }
        return id.withUnsafeBufferPointer { id in
            let first = place(kind, id)
            var end = first
            while end < entries.count, source.order(of: entries[end], kind, id) == 0 { end += 1 }
            guard end > first else { return nil }
            return end == first + 1 ? Array(source.text(entries[first])) : join(entries[first..<end])
        }
    }

    /// The ids to delete, of a change: by kind, then bytewise, each once.
    public var deletes: [(kind: StateKind, id: [UInt8])] {
        let all: [(kind: StateKind, id: [UInt8])] = deleted.map { ($0.kind, Array(source.id($0))) }
        return amendments.isEmpty ? all : all.filter { amendments[$0.kind]?[$0.id] == nil }
    }

    /// The same with these objects, in place of what it says of them.
    func amended(_ texts: [StateKind: [[UInt8]: [UInt8]]]) -> StateUpdate {
        var amended = self
        for (kind, objects) in texts { amended.amendments[kind, default: [:]].merge(objects) { $1 } }
        return amended
    }
}

/// Where an object and its id stand. 24 bytes, since there are a million of them.
struct StateEntry {
    /// The id's first bytes, which decide most comparisons.
    let prefix: UInt64
    let idOffset: UInt32
    let textOffset: UInt32
    let textLength: UInt32
    let idLength: UInt8
    let kind: StateKind
    /// The id stands in ``StateTexts/arena``: it was written otherwise.
    let isElsewhere: Bool
    /// Its object has several ids.
    let isAmbiguous: Bool
}

/// The bytes that entries refer to.
struct StateTexts {
    let bytes: Bytes
    /// Ids that are not written as they are: with escapes, or not canonical.
    let arena = TextArena()
    /// Keeps ``bytes``.
    let owner: AnyObject?

    @inline(__always) func id(_ entry: StateEntry) -> Bytes {
        if entry.isElsewhere { return arena.bytes(TextRef(offset: entry.idOffset, length: UInt16(entry.idLength))) }
        return slice(Int(entry.idOffset), Int(entry.idLength))
    }

    func text(_ entry: StateEntry) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(slice(Int(entry.textOffset), Int(entry.textLength)))
    }

    @inline(__always) private func slice(_ offset: Int, _ length: Int) -> Bytes {
        Bytes(rebasing: bytes[offset..<offset + length])
    }

    @inline(__always) func isSameID(_ one: StateEntry, _ other: StateEntry) -> Bool {
        one.prefix == other.prefix && one.kind == other.kind && one.idLength == other.idLength
            && sameBytes(id(one), id(other))
    }

    /// By kind, by id, and by place.
    @inline(__always) func isBefore(_ one: StateEntry, _ other: StateEntry) -> Bool {
        let order = compare(one, other)
        return order == 0 ? one.textOffset < other.textOffset : order < 0
    }

    /// The same for a kind and an id.
    func order(of entry: StateEntry, _ kind: StateKind, _ id: Bytes) -> Int {
        if entry.kind != kind { return Int(entry.kind.rawValue) - Int(kind.rawValue) }
        let own = self.id(entry)
        var index = 0
        while index < own.count, index < id.count {
            if own[index] != id[index] { return Int(own[index]) - Int(id[index]) }
            index &+= 1
        }
        return own.count - id.count
    }

    func isIDBefore(_ one: StateEntry, _ other: StateEntry) -> Bool { compare(one, other) < 0 }

    /// Below 0, 0 or above 0, by kind and by id.
    @inline(__always) private func compare(_ one: StateEntry, _ other: StateEntry) -> Int {
        if one.kind != other.kind { return one.kind.rawValue < other.kind.rawValue ? -1 : 1 }
        if one.prefix != other.prefix { return one.prefix < other.prefix ? -1 : 1 }
        return compareRests(id(one), id(other))
    }

    /// Of ids whose first eight bytes are the same.
    private func compareRests(_ left: Bytes, _ right: Bytes) -> Int {
        var index = 8
        let shorter = min(left.count, right.count)
        if let one = UnsafeRawPointer(left.baseAddress), let other = UnsafeRawPointer(right.baseAddress) {
            while index &+ 8 <= shorter {
                let first = UInt64(bigEndian: one.loadUnaligned(fromByteOffset: index, as: UInt64.self))
                let second = UInt64(bigEndian: other.loadUnaligned(fromByteOffset: index, as: UInt64.self))
                if first != second { return first < second ? -1 : 1 }
                index &+= 8
            }
        }
        while index < shorter {
            if left[index] != right[index] { return Int(left[index]) - Int(right[index]) }
            index &+= 1
        }
        return left.count - right.count
    }
}
