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
