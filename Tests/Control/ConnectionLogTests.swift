import FilterCatalog
import Pipeline
import PipelineNode
import PipelineText
import TestSupport
import Testing

@Suite("R28: the connection log")
struct ConnectionLogTests {
    private func text<let n: Int>(_ value: String, _: ShortText<n>.Type = ShortText<n>.self) -> ShortText<n> {
        var short = ShortText<n>()
        Array(value.utf8).withUnsafeBufferPointer { short.set($0) }
        return short
    }

    private func line(_ record: ConnectionRecord) -> String {
        var log = ConnectionLog(ReasonTable(catalog: catalog))
        log.append(record)
        return String(decoding: log.bytes, as: UTF8.self)
    }

    private var relayed: ConnectionRecord {
        var record = ConnectionRecord()
        record.serial = 1 << 48 | 7
        record.worker = 1
        record.reason = RuntimeReason.closedByClient.code
        record.sniff = .ok
        record.attempts = 2
        record.peer = Endpoint(IPAddress(v4: 0xC000_0201), 40000)
        record.client = record.peer
        record.destination = Endpoint(IPAddress(high: 0x2001_0DB8_0000_0000, low: 1), 443)
        record.backend = Endpoint(IPAddress(high: 0xFD00_0000_0000_0000, low: 0x10), 8443)
        record.bytesToUpstream = 517
        record.bytesToClient = .max
        record.endedAt = 1_795_421_045_678_999_999
        record.duration = .milliseconds(1234)
        record.timeToConnect = .milliseconds(3)
        record.route = text("rt_web")
        record.org = text("acme")
        record.app = text("shop")
        record.env = text("prod")
        record.serverName = text("app.example.com")
        return record
    }

    @Test("a relayed connection, whole")
    func whole() {
        let prefix = hex((0..<8).map { UniqueID(serial: 0).byte($0) })
        #expect(
            line(relayed) == """
                {"time":"2026-11-23T08:04:05.678Z","event":"connection","reason":"relay.closed client",\
                "stage":"relay","side":"client","route":"rt_web","org":"acme","app":"shop","env":"prod","server_name":"app.example.com",\
                "sniff":"ok","client":"192.0.2.1:40000","destination":"[2001:db8::1]:443",\
                "backend":"[fd00::10]:8443","attempts":2,"bytes_to_backend":517,\
                "bytes_to_client":18446744073709551615,"duration_ms":1234,"connect_ms":3,"worker":1,\
                "id":281474976710663,"unique_id":"\(prefix)0001000000000007"}

                """)
    }

    @Test("a refused instance is named with both of its addresses; a relayed one by that of the connection")
    func instance() {
        var record = relayed
        record.instance = text("i_7")
        record.instanceNumber = 7
        record.isRelayed = true
        func line() -> String {
            var log = ConnectionLog(ReasonTable(catalog: catalog)) { number in
                number == 7 ? [IPAddress(high: 0xFD00_0000_0000_0000, low: 7), IPAddress(v4: 0x0A01_0007)] : []
            }
            log.append(record)
            return String(decoding: log.bytes, as: UTF8.self)
        }
        #expect(line().contains(#""instance":"i_7","server_name""#))
        record.isRelayed = false
        #expect(line().contains(#""instance":"i_7","addresses":["fd00::7","10.1.0.7"],"server_name""#), "\(line())")
        record.instanceNumber = InstanceIdentity.unknown
        #expect(!line().contains("addresses"))
    }

    @Test("a refused one has no route, backend or name; a peer that is not the client is named")
    func refused() {
        var record = ConnectionRecord()
        record.reason = ReasonCode(rawValue: ReasonTable(catalog: catalog).bases[2] + 2)
        record.sniff = .timeout
        record.peer = Endpoint(IPAddress(v4: 0x7F00_0001), 1)
        record.client = Endpoint(IPAddress(v4: 0xC000_0201), 2)
        record.shadowed = ReasonCode(rawValue: ReasonTable(catalog: catalog).bases[1])
        let text = line(record)
        #expect(text.contains("\"reason\":\"sni.timeout client\",\"stage\":\"sni\",\"side\":\"client\""), "\(text)")
        #expect(text.contains("\"client\":\"192.0.2.1:2\",\"peer\":\"127.0.0.1:1\""), "\(text)")
        #expect(text.contains("\"shadowed\":\"anti_spoof.spoofed client\""), "\(text)")
        for key in ["route", "org", "app", "env", "server_name", "backend\"", "connect_ms"] {
            #expect(!text.contains("\"\(key)"), "\(key) in \(text)")
        }
    }

    @Test("R28: whose it is, whole: the same env's id in two orgs makes two lines that differ") func owners() {
        var other = relayed
        (other.org, other.app) = (text("globex"), text("web"))
        #expect(line(relayed).contains(#""org":"acme","app":"shop","env":"prod""#))
        #expect(line(other).contains(#""org":"globex","app":"web","env":"prod""#))
    }

    @Test("what a name may carry can't break the line", arguments: ["\"", "\\", "\n", "\u{0}", "\u{7F}", "\u{202E}"])
    func escapes(_ nasty: String) {
        var record = relayed
        record.route = text("a\(nasty)b")
        let text = line(record)
        #expect(text.utf8.filter { $0 == 0x0A }.count == 1)
        #expect(!text.dropLast().unicodeScalars.contains { $0.value < 0x20 || $0.value == 0x7F || $0 == "\u{202E}" })
        #expect(text.contains("\"route\":\"a\\"))
    }

    @Test("text that was cut says so")
    func cut() {
        var record = relayed
        record.serverName = text(String(repeating: "a", count: 100))
        #expect(line(record).contains("\"server_name\":\"\(String(repeating: "a", count: 62))…\""))
    }

    @Test("a reason that nobody knows is still a line")
    func unknownReason() {
        var record = relayed
        record.reason = ReasonCode(rawValue: .max)
        #expect(line(record).contains("\"reason\":\"unknown."))
    }
}
