import PipelineWire

/// What must hold of any bytes whatever that are looked at as a client's first. For the tests beside it and for Fuzz/run.
enum FirstBytesProperties {
    /// Nil, or what is wrong.
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        let final = FirstBytes.look(at: bytes)
        for count in 0...min(bytes.count, 16) {
            let verdict = FirstBytes.look(at: UnsafeBufferPointer(rebasing: bytes[..<count]))
            if case .incomplete(let needs) = verdict {
                if needs <= count || needs > PostgreSQLStart.headLength { return "needs \(needs) at \(count)" }
            } else if verdict != final {
                return "\(verdict) at \(count), \(final) in the end"
            }
        }
        let expected = reference(Array(bytes.prefix(8)))
        return final == expected ? nil : "\(final), and by the plain reading \(expected)"
    }

    /// The same said plainly: by all of the bytes at once.
    private static func reference(_ bytes: [UInt8]) -> FirstBytes {
        let mark = Array("SSH-".utf8)
        if bytes.starts(with: mark) { return .ssh }
        if mark.starts(with: bytes) { return .incomplete(needs: bytes.isEmpty ? 1 : 4) }
        func number(_ slice: ArraySlice<UInt8>) -> Int { slice.reduce(0) { $0 << 8 | Int($1) } }
        guard bytes[0] == 0, bytes.count < 2 || bytes[1] == 0 else { return .other }
        guard bytes.count >= 4 else { return .incomplete(needs: 8) }
        let length = number(bytes[..<4])
        guard length >= 8, length <= 10_000 else { return .other }
        guard bytes.count >= 8 else { return .incomplete(needs: 8) }
        switch (length, number(bytes[4..<8])) {
        case (8, 0x04D2_162F): return .postgresql(.tls)
        case (8, 0x04D2_1630): return .postgresql(.gss)
        case (16...268, 0x04D2_162E): return .postgresql(.cancel)
        case (9..., 0x0003_0000...0x0003_FFFF): return .postgresql(.startup)
        default: return .other
        }
    }
}
