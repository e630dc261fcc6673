/// Immutable text behind its length, so that one pointer says all: it fits into an atomic, and into a table of a million.
///
/// Threading: any number of readers. Ownership: exactly one owner calls ``deallocate()``, after the last reader.
public struct CountedText: @unchecked Sendable {
    private static let header = 2
    /// Longer texts are cut.
    public static let longest = Int(UInt16.max)

    private let start: UnsafePointer<UInt8>

    /// - Parameter start: where ``write(_:to:)`` has written one.
    public init(at start: UnsafePointer<UInt8>) { self.start = start }

    public init(copying text: UnsafeBufferPointer<UInt8>) {
        let memory = UnsafeMutablePointer<UInt8>.allocate(capacity: CountedText.byteCount(of: text.count))
        self.init(at: CountedText.write(text, to: memory))
    }

    public init(_ text: String) {
        self = Array(text.utf8).withUnsafeBufferPointer { CountedText(copying: $0) }
    }

    /// Nil for 0.
    init?(address: UInt) {
        guard let start = UnsafePointer<UInt8>(bitPattern: address) else { return nil }
        self.start = start
    }

    /// What a text of so many bytes takes.
    public static func byteCount(of count: Int) -> Int { header + min(count, longest) }

    /// - Parameter memory: of ``byteCount(of:)``.
    @discardableResult
    public static func write(
        _ text: UnsafeBufferPointer<UInt8>, to memory: UnsafeMutablePointer<UInt8>
    ) -> UnsafePointer<UInt8> {
        let count = min(text.count, longest)
        memory[0] = UInt8(truncatingIfNeeded: count)
        memory[1] = UInt8(truncatingIfNeeded: count &>> 8)
        if let source = text.baseAddress { (memory + header).update(from: source, count: count) }
        return UnsafePointer(memory)
    }

    var address: UInt { UInt(bitPattern: start) }

    public var bytes: UnsafeBufferPointer<UInt8> {
        UnsafeBufferPointer(start: start + CountedText.header, count: Int(start[0]) | Int(start[1]) << 8)
    }

    /// A view of it.
    public var text: FrozenText { FrozenText(viewing: UnsafeMutableBufferPointer(mutating: bytes)) }

    public func deallocate() { start.deallocate() }
}
