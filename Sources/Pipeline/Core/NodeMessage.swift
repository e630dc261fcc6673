/// What the node itself says before TLS begins: to a client in its server's place, or to a backend in its client's
/// (docs/adr/0097).
public struct NodeMessage {
    /// The most bytes that are said before the peer speaks again.
    public static let capacity = 512
    private var storage: InlineArray<512, UInt8>
    private var start = 0
    private var end = 0
    /// A stage has said more than fits: what was said is not whole, and must not be sent.
    public private(set) var isOverfull = false

    public init() { storage = InlineArray(repeating: 0) }

    /// Most connections say nothing, so the bytes are not cleared.
    public mutating func reset() {
        start = 0
        end = 0
        isOverfull = false
    }

    /// All was sent.
    public var isEmpty: Bool { start == end && !isOverfull }
    /// How many bytes were not sent yet.
    public var count: Int { end - start }

    mutating func append(_ bytes: UnsafeBufferPointer<UInt8>) {
        if isEmpty { (start, end) = (0, 0) }
        guard bytes.count <= NodeMessage.capacity - end else {
            isOverfull = true
            return
        }
        for byte in bytes {
            storage[end] = byte
            end += 1
        }
    }

    /// Calls `body` with the bytes that were not sent yet, valid for the call.
    public func withUnsent<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        withUnsafeBytes(of: storage) { body(UnsafeRawBufferPointer(rebasing: $0[start..<end])) }
    }

    /// The peer's kernel took the first `count` of them.
    public mutating func noteSent(_ count: Int) { start = min(end, start + max(0, count)) }
}

/// What a stage makes of what a backend has said before TLS begins (``Filter/upgrade(_:_:_:_:)``).
@frozen public enum UpgradeStep: Equatable, Sendable {
    /// The backend has its turn.
    case more
    /// It is ready for the client's hello, and has said nothing behind that.
    case done
    /// Closes the connection. The number is the index into the filter's ``FilterDescriptor/reasons``.
    case refuse(UInt8)
}
