import CMnl
import Pipeline
import PipelineRouting
import Testing

@testable import PipelineAdmin
@testable import PipelineAlerts
@testable import PipelineInspect
@testable import PipelineNode
@testable import PipelineText

@Suite("Requests of the admin socket, and the parts behind it")
struct AdminRequestTests {
    private func parse(_ text: String) -> Result<AdminRequest, AdminRequest.Fault> {
        do throws(AdminRequest.Fault) { return .success(try AdminRequest(Array(text.utf8))) } catch {
            return .failure(error)
        }
    }

    private var all: [AdminRequest] {
        get throws {
            let question = { (first: Explainer.FirstBytes) in
                AdminRequest.Command.explain(
                    .init(
                        to: try #require(Endpoint("[2001:db8::1]:443")),
                        from: try #require(Endpoint("[2001:db8::2]:9")),
                        first: first))
            }
            var top = TopQuestion()
            (top.by, top.order, top.seconds, top.rows) = (.destination, .connections, 60, 7)
            (top.instance, top.env, top.org) = ("i_7", "env_a", "acme")
            (top.destination, top.port) = (IPAddress("2001:db8::9"), 25)
            return [
                AdminRequest(
                    .routes(ReportFilter(owner: "acme/shop", state: .quarantined, text: "a\"b")), isText: true),
                AdminRequest(.top(TopQuestion()), isText: true), AdminRequest(.top(top), isText: false),
                AdminRequest(.status, isText: false), AdminRequest(.routes(ReportFilter()), isText: true),
                AdminRequest(.backends(ReportFilter(state: .gone)), isText: false),
                AdminRequest(.reload(isConfirmed: false), isText: true),
                AdminRequest(.reload(isConfirmed: true), isText: true), AdminRequest(.exportState, isText: true),
                AdminRequest(.planGround, isText: false),
                AdminRequest(.reload(isConfirmed: true, way: .now), isText: true),
                AdminRequest(.reload(isConfirmed: false, way: .rollback), isText: false),
                AdminRequest(.apply(length: 1, isOlder: true), isText: false),
                AdminRequest(.apply(length: 268_435_456, isOlder: false), isText: true),
                AdminRequest(.apply(length: 7, isOlder: false, goesOn: true), isText: false),
                AdminRequest(.confirm(id: "h\"1"), isText: true), AdminRequest(.discard(id: "h\"1"), isText: false),
                AdminRequest(try question(.usual), isText: false),
                AdminRequest(try question(.hello(Array("a.example.com".utf8))), isText: true),
                AdminRequest(try question(.bytes([0, 0x16, 0xFF])), isText: false),
            ]
        }
    }

    @Test("what the command writes is what the node reads")
    func roundTrip() throws {
        for request in try all {
            #expect(parse(String(decoding: request.bytes, as: UTF8.self)) == .success(request))
        }
    }

    @Test("a reload goes everywhere or ends a canary, and not both")
    func ways() {
        for text in [
            #"{"command":"reload","now":true,"rollback":true}"#, #"{"command":"reload","now":1}"#,
            #"{"command":"reload","rollback":"yes"}"#,
        ] {
            guard case .failure = parse(text) else {
                Issue.record("\(text) is taken")
                continue
            }
        }
        let usual = AdminRequest(.reload(isConfirmed: false), isText: false)
        #expect(parse(#"{"command":"reload","now":false}"#) == .success(usual))
    }

    @Test("every prefix is a fault, never a request; a byte changed is a fault or another valid request")
    func hostile() throws {
        for request in try all {
            let line = Array(request.bytes.dropLast())
            for count in 0..<line.count {
                #expect(throws: AdminRequest.Fault.self) { try AdminRequest(Array(line[..<count])) }
            }
            for position in line.indices {
                for value in [0x00, 0x22, 0x5C, 0x7B, 0xFF] as [UInt8] {
                    var changed = line
                    changed[position] = value
                    if let read = try? AdminRequest(changed) {
                        #expect(try AdminRequest(read.bytes) == read)
                    }
                }
            }
        }
    }

    @Test("a table's columns line up, and nothing in it reaches the terminal as a control character")
    func table() {
        var table = TextTable(["NAME", "-COUNT"])
        table.add(["a", "1"])
        table.add(["long\u{1B}[31m", "1000"])
        table.add(["\u{202E}b", "2"])
        #expect(
            table.text == "NAME       COUNT\na              1\nlong\u{FFFD}[31m   1000\n\u{FFFD}b             2\n")
    }

    @Test(
        "a node that drains is known by its status, one of the version before as well",
        arguments: [
            (#"{"node":"a","status":"draining","listeners":[{"status":"open"}]}"#, true),
            (#"{"node":"a","state":"draining","listeners":[{"state":"open"}]}"#, true),
            (#"{"status":"serving","state":"draining"}"#, false), (#"{"listeners":[{"status":"draining"}]}"#, false),
            (#"{"status":["draining"]}"#, false), (#"{"status":"draining""#, false), ("", false),
        ])
    func draining(status: String, isDraining: Bool) {
        #expect(AdminServer.isDraining(Array(status.utf8)) == isDraining)
    }
}

@Suite("What the kernel says of addresses")
struct AddressMonitorTests {
    /// One RTM_NEWADDR or RTM_DELADDR as rtnetlink(7) lays it out.
    private func message(_ type: UInt16, family: UInt8 = 2, _ attributes: [(UInt16, [UInt8])]) -> [UInt8] {
        let little = { (value: UInt32) in (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) } }
        let short = { (value: UInt16) in [UInt8(truncatingIfNeeded: value), UInt8(value >> 8)] }
        var body: [UInt8] = [family, 32, 0, 0] + little(1)
        for (type, value) in attributes { body += short(UInt16(4 + value.count)) + short(type) + value }
        return little(UInt32(16 + body.count)) + short(type) + short(0) + little(0) + little(0) + body
    }

    private func read(_ bytes: [UInt8]) -> Set<IPAddress> {
        var news: Set<IPAddress> = []
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(bytes.count, 1), alignment: 8)
        defer { memory.deallocate() }
        memory.copyBytes(from: bytes)
        AddressMonitor.read(UnsafeRawBufferPointer(rebasing: memory[..<bytes.count]), into: &news)
        return news
    }

    private let local: (UInt16, [UInt8]) = (2, [192, 0, 2, 7])

    @Test("addresses of both families that come and go are named; other messages are not")
    func names() throws {
        let address = try #require(IPAddress("192.0.2.7"))
        #expect(read(message(20, [local])) == [address])
        #expect(read(message(21, [local])) == [address])
        let six: [UInt8] = [0x20, 1, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]
        let sixth = try #require(IPAddress("2001:db8::9"))
        #expect(read(message(20, family: 10, [(1, six)])) == [sixth])
        #expect(read(message(21, family: 10, [(1, six), (2, six)])) == [sixth])
        #expect(read(message(20, family: 10, [(2, [192, 0, 2, 7])])) == [])
        #expect(read(message(20, family: 7, [(1, six)])) == [])
        #expect(read(message(16, [local])) == [])
        #expect(read(message(20, [local]) + message(21, [(1, [192, 0, 2, 8])])).count == 2)
    }

    @Test("an interface that comes, goes or changes is news, and names no address")
    func links() {
        let has = { (bytes: [UInt8]) in bytes.withUnsafeBytes(AddressMonitor.hasLink) }
        #expect(has(message(16, [])) && has(message(17, [])) && !has(message(20, [local])) && !has([]))
        #expect(has(message(20, [local]) + message(16, [])))
        #expect(read(message(16, [local])) == [])
    }

    @Test("every prefix and every byte changed is read without harm")
    func hostile() {
        let whole = message(20, [(1, [192, 0, 2, 7]), local])
        for count in 0..<whole.count { #expect(read(Array(whole[..<count])).count <= 1) }
        for position in whole.indices {
            for value in [0, 1, 0x7F, 0xFF] as [UInt8] {
                var changed = whole
                changed[position] = value
                #expect(read(changed).count <= 2)
            }
        }
    }
}
