import Pipeline

extension ConnectionView {
    /// The longest list of protocols that is read where it crosses TLS records: it is copied, to the stack.
    public static var splitALPNLimit: Int { 1024 }

    /// Calls `body` with the protocols that the client's hello offers, valid for the call; none where it offers none, or
    /// where nobody has looked.
    @inline(__always)
    public func withALPN<Result>(_ body: (ALPNList) -> Result) -> Result {
        let length = Int(facts.alpnLength)
        guard length > 0 else { return body(.none) }
        let field = HelloField(
            offset: Int(facts.alpnOffset), length: length, recordEnd: Int(facts.alpnRecordEnd))
        if let whole = field.contiguous(in: bytes) { return body(ALPNList(whole)) }
        guard length <= ConnectionView.splitALPNLimit else { return body(.none) }
        return withUnsafeTemporaryAllocation(of: UInt8.self, capacity: length) { memory in
            guard let count = field.copy(from: bytes, into: memory) else { return body(.none) }
            return body(ALPNList(UnsafeBufferPointer(rebasing: memory[..<count])))
        }
    }
}
