/// Changes that are made together or not at all.
public struct StateBatch: Sendable {
    /// The entry of a log, with room for its header.
    private(set) var bytes = [UInt8](repeating: 0, count: StateFormat.entryHeader)
    private(set) var count: UInt32 = 0
    /// Why it can't be appended; nil: it can.
    public private(set) var problem: StateFault?

    public init() {}

    public var isEmpty: Bool { count == 0 }

    /// - Parameters:
    ///   - kind: 1...255.
    ///   - id: 1...1024 bytes. What does not fit is refused when the batch is appended.
    public mutating func put(_ kind: UInt8, _ id: some Collection<UInt8>, _ value: UnsafeRawBufferPointer) {
        add(kind, id, value, flags: 0)
    }

    public mutating func delete(_ kind: UInt8, _ id: some Collection<UInt8>) {
        add(kind, id, UnsafeRawBufferPointer(start: nil, count: 0), flags: Record.deletion)
    }

    private mutating func add(
        _ kind: UInt8, _ id: some Collection<UInt8>, _ value: UnsafeRawBufferPointer, flags: UInt8
    ) {
        let idCount = id.count
        if let problem = StateFault.unfit(kind: kind, id: idCount, value: value.count) {
            self.problem = problem
            return
        }
        let start = bytes.count
        let size = Record.byteCount(id: idCount, value: value.count)
        guard start + size <= StateFormat.longestBatch else {
            problem = .unfit(what: "more than \(StateFormat.longestBatch) bytes at once")
            return
        }
        bytes.append(contentsOf: repeatElement(0, count: Record.header))
        bytes.append(contentsOf: id)
        bytes.append(contentsOf: repeatElement(0, count: StateFormat.padded(idCount) - idCount))
        bytes.append(contentsOf: value)
        bytes.append(contentsOf: repeatElement(0, count: start + size - bytes.count))
        bytes.withUnsafeMutableBytes {
            Record.writeHeader(kind: kind, id: idCount, value: value.count, flags: flags, to: $0, at: start)
        }
        count += 1
    }
}

extension StateFault {
    static func unfit(kind: UInt8, id: Int, value: Int) -> StateFault? {
        if kind == 0 { return .unfit(what: "a record of kind 0") }
        if id < 1 || id > StateFormat.longestID {
            return .unfit(what: "a record whose id has \(id) bytes, not 1 to \(StateFormat.longestID)")
        }
        if value > StateFormat.longestValue {
            return .unfit(what: "a record of \(value) bytes, more than \(StateFormat.longestValue)")
        }
        return nil
    }
}
