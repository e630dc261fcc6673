import FilterCatalog
import Pipeline
import PipelineLanguage
import Testing

@testable import PipelineIntercept

@Suite("What a node looks after of its rules") struct InterceptMonitorTests {
    private static func attribute(_ type: UInt16, _ value: [UInt8]) -> [UInt8] {
        let length = UInt16(4 + value.count)
        let padding = [UInt8](repeating: 0, count: (4 - value.count % 4) % 4)
        return bytes(length) + bytes(type) + value + padding
    }

    private static func bytes<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] {
        withUnsafeBytes(of: number) { Array($0) }
    }

    private static func message(_ type: UInt16, _ header: [UInt8], _ attributes: [UInt8]) -> [UInt8] {
        let length = UInt32(16 + header.count + attributes.count)
        return bytes(length) + bytes(type) + bytes(UInt16(0)) + bytes(UInt32(0)) + bytes(UInt32(0)) + header
            + attributes
    }

    private func isNews(_ bytes: [UInt8], isNetfilter: Bool) -> Bool {
        bytes.withUnsafeBytes { InterceptMonitor.isNews($0, isNetfilter: isNetfilter, 28778) }
    }

    private static let nft = [UInt8](repeating: 0, count: 4)

    /// NFNL_SUBSYS_NFTABLES is 10; NEWTABLE 0, DELTABLE 2, NEWRULE 6, NEWSETELEM 12, NEWGEN 15.
    @Test("of nftables: our table, and neither others nor elements of sets")
    func tables() {
        let name = { (text: String) in Self.attribute(1, Array(text.utf8) + [0]) }
        for (type, table, isNew) in [
            (0, "pipelined", true), (2, "pipelined", true), (6, "pipelined", true), (12, "pipelined", false),
            (2, "pipelined2", false), (6, "nat", false),
        ] as [(UInt16, String, Bool)] {
            let one = Self.message(10 << 8 | type, Self.nft, name(table))
            #expect(isNews(one, isNetfilter: true) == isNew, "\(type) \(table)")
            let other = Self.message(10 << 8 | 6, Self.nft, name("nat"))
            #expect(isNews(other + one + other, isNetfilter: true) == isNew)
        }
        #expect(!isNews(Self.message(10 << 8 | 15, Self.nft, Self.attribute(1, [0, 0, 0, 1])), isNetfilter: true))
    }

    /// RTM_NEWROUTE 24, RTM_DELRULE 33, RTM_NEWLINK 16, RTM_NEWADDR 20.
    @Test("of routing: our table's routes, any rule, and ports of bridges")
    func routing() {
        let route = { (table: UInt32) in
            Self.message(24, [UInt8](repeating: 0, count: 12), Self.attribute(15, Self.bytes(table)))
        }
        #expect(isNews(route(28778), isNetfilter: false) && !isNews(route(254), isNetfilter: false))
        #expect(isNews(Self.message(33, [UInt8](repeating: 0, count: 12), []), isNetfilter: false))
        let link = { (attributes: [UInt8]) in Self.message(16, [UInt8](repeating: 0, count: 16), attributes) }
        #expect(isNews(link(Self.attribute(10, Self.bytes(UInt32(3)))), isNetfilter: false))
        #expect(!isNews(link([]), isNetfilter: false))
        #expect(!isNews(Self.message(20, [UInt8](repeating: 0, count: 8), []), isNetfilter: false))
    }

    @Test("no message traps: every prefix, and every byte changed") func hostile() {
        let bytes =
            Self.message(10 << 8 | 6, Self.nft, Self.attribute(1, Array("nat".utf8)) + Self.attribute(2, [1, 2, 3]))
            + Self.message(24, [UInt8](repeating: 0, count: 12), Self.attribute(15, [1, 0, 0, 0]))
        for end in bytes.indices {
            for isNetfilter in [false, true] {
                _ = isNews(Array(bytes[..<end]), isNetfilter: isNetfilter)
                for byte in [0, 1, 0x7F, 0x80, 0xFF] as [UInt8] {
                    var changed = bytes
                    changed[end] = byte
                    _ = isNews(changed, isNetfilter: isNetfilter)
                }
            }
        }
    }

    @Test(
        "`watch` without a word where the config says what is intercepted; nothing where it does not",
        arguments: [
            ("intercept interface vm*", "transparent", "watch"), ("intercept interface vm*", "redirect", "watch"),
            ("", "transparent", nil), ("intercept interface vm*\nintercept rules off", "transparent", nil),
            ("intercept interface vm*\nintercept rules manage", "transparent", "manage"),
        ] as [(String, String, String?)])
    func wishes(_ node: String, _ mode: String, _ wanted: String?) throws {
        let text =
            "node n {\n\(node)\n}\npipeline out {\nanti_spoof source assigned\nbackend original_destination\n}\n"
            + "listen [::]:15001 \(mode) via out\n"
        let program = try #require(compile(Array(text.utf8), file: "t", catalog: catalog).program)
        var running = program.node
        running.mark = 0x100
        let wish = InterceptionWish.of(program, running)
        #expect(wish.wish?.mode.rawValue == wanted && wish.problem == nil)
        // Rules fit the connections that the node makes, whatever the file says by now.
        #expect(wish.wish.map { $0.rules.mark == 0x100 } ?? true)
    }
}
