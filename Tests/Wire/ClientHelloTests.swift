import Pipeline
import PipelineWire
import TestSupport
import Testing

@Suite("ClientHello")
struct ClientHelloTests {
    private func parse(_ bytes: some Collection<UInt8>, limit: Int = 8192) -> HelloVerdict {
        withExactBytes(bytes) { ClientHello.parse($0, limit: limit) }
    }

    @Test("name, ALPN and ECH, with what follows left alone")
    func fields() {
        var builder = HelloBuilder("app.example.com")
        builder.alpn = ["h2", "http/1.1"]
        builder.hasECH = true
        let stream = builder.bytes + [0x14, 3, 3, 0, 1, 1]
        withExactBytes(stream) { bytes in
            guard case .ok(let hello) = ClientHello.parse(bytes, limit: 8192) else {
                Issue.record("refused")
                return
            }
            #expect(hello.serverNameBytes(in: bytes) == Array("app.example.com".utf8))
            #expect(hello.alpnProtocols(in: bytes) == [Array("h2".utf8), Array("http/1.1".utf8)])
            #expect(hello.hasECH)
            #expect(hello.totalBytes == builder.bytes.count)
        }
    }

    @Test(
        "R7: what is known early is said early",
        arguments: [
            ([0x47], HelloVerdict.notTLS),
            ([0x16, 0x02], .notTLS),
            ([0x16, 0x47], .notTLS),
            ([0x16, 3, 1, 0, 0], .malformed(.emptyRecord)),
            ([0x16, 3, 1, 0x40, 0x01], .malformed(.recordTooLong)),
            ([0x16, 3, 1, 0x40, 0x00], .tooLarge),
            ([0x16, 3, 1, 1, 0, 2], .malformed(.notClientHello)),
            ([0x16, 3, 1, 1, 0, 1, 0, 0, 0xFB], .malformed(.bytesAfterHello)),
            ([0x16, 3, 1, 1, 0, 1, 1, 0, 0], .tooLarge),
            ([0x16, 3, 1, 1, 0, 1, 0, 0, 0xFC, 2], .malformed(.clientVersion)),
            ([0x80, 0x2E, 1, 3], .malformed(.sslV2)),
            ([0x80, 0x2E, 1, 0], .notTLS),
            ([0x80, 0x2E, 7], .notTLS),
            ([0x16, 3, 1, 0, 1, 1, 0x15], .malformed(.interleavedRecord)),
            ([0x16, 3, 1, 0, 1, 1, 0x16, 2], .malformed(.recordVersion)),
        ] as [([UInt8], HelloVerdict)])
    func early(_ bytes: [UInt8], _ verdict: HelloVerdict) {
        #expect(parse(bytes) == verdict)
        if case .incomplete = parse(bytes.dropLast()) { return }
        Issue.record("known before its last byte")
    }

    /// The same hello, its message cut into records of `size` bytes.
    private func inRecords(of size: Int, _ stream: [UInt8]) -> [UInt8] {
        let message = stream.dropFirst(5)
        return stride(from: 0, to: message.count, by: size).flatMap { start in
            let piece = message.dropFirst(start).prefix(size)
            return [0x16, 3, 1, UInt8(piece.count >> 8), UInt8(piece.count & 0xFF)] + piece
        }
    }

    @Test("R7: a hello in one-byte records, a byte at a time, costs what it is long: no look goes back")
    func manyPieces() {
        // The last field may be read again, four bytes of it, each behind a record header of five.
        let readAgain = 4 * (5 + 1)
        var builder = HelloBuilder("app.example.com")
        builder.alpn = (0..<1000).map { "p\(100_000 + $0)" }
        let stream = inRecords(of: 1, builder.bytes)
        let wanted = withExactBytes(stream) { ClientHello.parse($0, limit: 65536) }
        let bytes = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: stream.count)
        defer { bytes.deallocate() }
        _ = bytes.initialize(from: stream)
        var scan = HelloScan()
        var last = HelloVerdict.incomplete(needs: 1)
        for count in 0...stream.count {
            last = scan.look(at: UnsafeBufferPointer(rebasing: bytes[..<count]), limit: 65536)
            if count > readAgain { bytes[count - readAgain - 1] = 0xEE }
        }
        #expect(last == wanted)
        if case .ok = last { return }
        Issue.record("\(last)")
    }

    @Test("R7: who is slow is asked for as few looks as the records allow")
    func looks() {
        let stream = HelloBuilder("app.example.com").bytes
        var looks: [Int] = []
        var count = 0
        while case .incomplete(let needs) = parse(stream.prefix(count)) {
            looks.append(needs)
            count = needs
        }
        #expect(looks == [1, 2, 5, 9, stream.count])
    }

    @Test("R7: the limit counts record headers, to the byte")
    func limit() {
        var builder = HelloBuilder("app.example.com")
        for cuts in [[], [1, 1, 1, 1, 1, 1], [60, 60]] {
            builder.recordLengths = cuts
            let stream = builder.bytes
            #expect(parse(stream, limit: stream.count - 1) == .tooLarge)
            if case .ok(let hello) = parse(stream, limit: stream.count) {
                #expect(hello.totalBytes == stream.count)
            } else {
                Issue.record("refused at its own size")
            }
        }
    }

    @Test(
        "R7: any extension twice is malformed, however many others stand between them",
        arguments: [0, 1, 10, 43, 63, 64, 0x2A2A, 0xFE0D, 0xFF01, 0xFFFF] as [UInt16])
    func twice(_ type: UInt16) {
        var builder = HelloBuilder(type == 0 ? "app.example.com" : nil)
        builder.hasECH = type == 0xFE0D
        let isThere: Set<UInt16> = [0, 43, 0x2A2A, 0xFE0D]
        let first = isThere.contains(type) ? [] : [type]
        // Types that no other extension here has.
        let between = (0..<3000).map { 0x3000 + UInt16($0) }
        for count in [0, 1, 15, 16, 17, 1000, 3000] {
            builder.more = first + between.prefix(count)
            guard case .ok = parse(builder.bytes, limit: 16384) else {
                Issue.record("refused with \(count) other extensions")
                continue
            }
            builder.more += [type]
            #expect(parse(builder.bytes, limit: 16384) == .malformed(.duplicateExtension), "\(count)")
            builder.recordLengths = [200]
            #expect(parse(builder.bytes, limit: 16384) == .malformed(.duplicateExtension), "\(count), in two records")
            builder.recordLengths = []
        }
    }

    @Test("R7: a repeated extension is said when it is known, and every prefix before that is incomplete")
    func twicePrefixes() {
        for others in [0, 40] {
            var builder = HelloBuilder("app.example.com")
            builder.more = (0..<UInt16(others)).map { 0x3000 + $0 } + [0xFF01, 0xFF01]
            let stream = builder.bytes
            var isDecided = false
            for count in 0...stream.count {
                switch parse(stream.prefix(count)) {
                case .incomplete: #expect(!isDecided)
                case .malformed(.duplicateExtension): isDecided = true
                case let other: Issue.record("\(other) at \(count)")
                }
            }
            #expect(isDecided)
        }
    }

    @Test("R7: a hello of thousands of extensions costs what its bytes cost, twins or not")
    func manyExtensions() {
        func seconds(_ types: [UInt16]) -> Double {
            var builder = HelloBuilder("app.example.com")
            builder.more = types
            let stream = builder.bytes
            return processorSeconds { _ = parse(stream, limit: 65536) }
        }
        let few = seconds((0..<1000).map { 0x3000 + UInt16($0) })
        let many = seconds((0..<16000).map { 0x3000 + UInt16($0) })
        // Sixteen times as many; were each compared with each, it would be 256 times as long.
        #expect(many < few * 100 + 0.001, "\(few) s for 1,000, \(many) s for 16,000")
    }

    @Test("R7: at every cut into three records, the same hello")
    func threeRecords() {
        var builder = HelloBuilder("app.example.com")
        builder.alpn = ["h2", "http/1.1"]
        let length = builder.message.count
        for first in stride(from: 1, to: length - 1, by: 3) {
            for second in stride(from: 1, to: length - first, by: 7) {
                builder.recordLengths = [first, second]
                let stream = builder.bytes
                withExactBytes(stream) { bytes in
                    guard case .ok(let hello) = ClientHello.parse(bytes, limit: 8192) else {
                        Issue.record("refused when cut at \(first) and \(second)")
                        return
                    }
                    #expect(hello.serverNameBytes(in: bytes) == Array("app.example.com".utf8))
                    #expect(hello.alpnProtocols(in: bytes) == [Array("h2".utf8), Array("http/1.1".utf8)])
                }
            }
        }
    }

    @Test("R7: names with bytes that no name has are malformed, others are given as they are")
    func nameBytes() {
        for byte in UInt8.min...UInt8.max {
            var builder = HelloBuilder()
            builder.name = [0x61, byte, 0x61]
            let stream = builder.bytes
            if byte >= 0x20, byte <= 0x7E {
                guard case .ok = parse(stream) else {
                    Issue.record("byte \(byte) is refused")
                    continue
                }
            } else {
                #expect(parse(stream) == .malformed(.serverNameByte))
            }
        }
    }

    @Test("R7: a name of 255 bytes is given, an empty or longer one malformed")
    func nameLength() {
        for (length, isTaken) in [(0, false), (1, true), (255, true), (256, false), (4000, false)] {
            var builder = HelloBuilder()
            builder.name = [UInt8](repeating: 0x61, count: length)
            builder.recordLengths = [150]
            if isTaken {
                withExactBytes(builder.bytes) { bytes in
                    guard case .ok(let hello) = ClientHello.parse(bytes, limit: 8192) else {
                        Issue.record("\(length) bytes are refused")
                        return
                    }
                    #expect(hello.serverNameBytes(in: bytes)?.count == length)
                }
            } else {
                #expect(parse(builder.bytes) == .malformed(.serverNameLength))
            }
        }
    }

    @Test("a field asked of other bytes than its own is nothing, not a trap")
    func otherBytes() {
        var builder = HelloBuilder("app.example.com")
        builder.recordLengths = [builder.message.count - 30]
        builder.alpn = ["h2"]
        guard case .ok(let hello) = parse(builder.bytes) else {
            Issue.record("refused")
            return
        }
        for count in 0..<builder.bytes.count {
            withExactBytes([UInt8](repeating: 0xFF, count: count)) { bytes in
                _ = hello.serverNameBytes(in: bytes)
                _ = hello.alpnProtocols(in: bytes)
            }
        }
    }
}
