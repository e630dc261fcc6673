import Pipeline
import PipelineRouting
import PipelineState

/// The kinds of records in a node's store. Numbers stay: what was written by one version is read by the next.
enum RecordKind {
    /// Objects as they are desired: the numbers of ``StateKind``, 1...15.
    static func desired(_ kind: StateKind) -> UInt8 { kind.rawValue }
    /// How objects are applied, where that is not simply as desired: 17...31.
    static func applied(_ kind: StateKind) -> UInt8 { kind.rawValue + 16 }
    /// What is known of the last update: a text for each name.
    static let fact: UInt8 = 40
    /// R31: addresses that envs have lost, by address.
    static let lost: UInt8 = 41
    /// Instances that drain, by address and port.
    static let drain: UInt8 = 42

    /// What is no object, and stays whatever becomes of those.
    static let besides = [lost, drain]
}

extension IPAddress {
    /// In network order.
    var record: [UInt8] { (0..<16).map(byte) }

    init?(record: some Collection<UInt8>) {
        guard record.count == 16 else { return nil }
        let words = record.enumerated().reduce(into: (UInt64(0), UInt64(0))) { words, item in
            if item.offset < 8 {
                words.0 = words.0 << 8 | UInt64(item.element)
            } else {
                words.1 = words.1 << 8 | UInt64(item.element)
            }
        }
        self.init(high: words.0, low: words.1)
    }
}

extension Endpoint {
    var record: [UInt8] { address.record + [UInt8(port >> 8), UInt8(truncatingIfNeeded: port)] }

    init?(record: Bytes) {
        guard record.count == 18, let address = IPAddress(record: record.prefix(16)) else { return nil }
        self.init(address, UInt16(record[16]) << 8 | UInt16(record[17]))
    }
}

extension LostAddress {
    /// When, in eight bytes, and whose it was.
    var record: [UInt8] { withUnsafeBytes(of: at.littleEndian, Array.init) + Array(owner.utf8) }

    /// Nil: a later version wrote it, and what it means is not known.
    init?(record: UnsafeRawBufferPointer) {
        guard record.count > 8 else { return nil }
        self.init(
            owner: String(decoding: record[8...], as: UTF8.self),
            at: UInt64(littleEndian: record.loadUnaligned(as: UInt64.self)))
    }
}

extension KeptDrain {
    /// The end, and the whole grace, in eight bytes each.
    var record: [UInt8] {
        withUnsafeBytes(of: end.littleEndian, Array.init)
            + withUnsafeBytes(of: grace.nanoseconds.littleEndian, Array.init)
    }

    init?(record: UnsafeRawBufferPointer) {
        guard record.count == 16 else { return nil }
        let word = { UInt64(littleEndian: record.loadUnaligned(fromByteOffset: $0, as: UInt64.self)) }
        self.init(end: word(0), grace: TimeSpan(nanoseconds: word(8)))
    }
}

/// Desired objects as a store has them.
struct StoredObjects: DesiredObjects {
    let store: StateStore

    func text(_ kind: StateKind, _ id: Bytes) -> UnsafeRawBufferPointer? { store.value(RecordKind.desired(kind), id) }

    func forEach(_ kind: StateKind, _ body: (Bytes, UnsafeRawBufferPointer) -> Void) {
        store.forEach(RecordKind.desired(kind), body)
    }
}

/// How they are applied, as the store has it.
struct StoredApplied: AppliedObjects {
    let store: StateStore

    func visit(_ body: (StateKind, Bytes, AppliedObject) -> Void) {
        for kind in StateKind.allCases {
            store.forEach(RecordKind.applied(kind)) { id, value in
                if let object = AppliedObject(record: value) { body(kind, id, object) }
            }
        }
    }

    func find(_ kind: StateKind, _ id: Bytes) -> AppliedObject? {
        store.value(RecordKind.applied(kind), id).flatMap { AppliedObject(record: $0) }
    }
}

extension AppliedObject {
    private enum Tag {
        static let desired: UInt8 = 0
        static let nothing: UInt8 = 1
        static let text: UInt8 = 2
    }

    /// Tag, flags, how many bytes are beside in four bytes, those, and the text.
    var record: [UInt8] {
        let (tag, text): (UInt8, [UInt8]) =
            switch version {
            case .desired: (Tag.desired, [])
            // Without its text it is nothing.
            case .earlier, .nothing: (Tag.nothing, [])
            case .text(let text): (Tag.text, text)
            }
        let size = UInt32(clamping: beside.count)
        return [tag, flags.rawValue] + withUnsafeBytes(of: size.littleEndian, Array.init) + beside + text
    }

    /// Nil: a later version wrote it. What is not known counts as nothing: it is served for nobody.
    init?(record: UnsafeRawBufferPointer) {
        guard record.count >= 6 else { return nil }
        let size = Int(UInt32(littleEndian: record.loadUnaligned(fromByteOffset: 2, as: UInt32.self)))
        guard record.count - 6 >= size else { return nil }
        let version: Version =
            switch record[0] {
            case Tag.desired: .desired
            case Tag.text: .text(Array(record[(6 + size)...]))
            default: .nothing
            }
        self.init(version, Flags(rawValue: record[1]), beside: Array(record[6..<6 + size]))
    }
}
