import PipelineLastGood

/// What must hold of the boot guard's mark, whatever is in its file. For the tests beside it and for Fuzz/run.
enum BootProperties {
    /// Nil, or what is wrong.
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        guard let mark = BootMark(Array(bytes)) else { return nil }
        guard (0...1000).contains(mark.starts) else { return "\(mark.starts) starts" }
        return BootMark(mark.bytes) == mark ? nil : "\(mark), read again: \(String(describing: BootMark(mark.bytes)))"
    }
}
