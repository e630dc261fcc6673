import FilterCatalog
import Pipeline
import PipelineIntercept
import PipelineLanguage
import Testing

@Suite("egress rules --check") struct EgressRulesCheckTests {
    private func rules(_ port: Int = 15001, node: String = "") throws -> EgressRules {
        let text =
            "node n {\nintercept interface vm*\n\(node)\n}\npipeline out {\nanti_spoof source assigned\n"
            + "backend original_destination\n}\nlisten [::]:\(port) transparent via out\n"
        let compilation = compile(Array(text.utf8), file: "t", catalog: catalog)
        return try EgressRules(try #require(compilation.program, "\(compilation.diagnostics.map(\.message))"))
    }

    @Test("the table of this config is no fault; none, a dormant one and one of another config are") func whole() throws
    {
        let rules = try rules()
        #expect(rules.tableFault(rules.nftables) == nil)
        #expect(rules.tableFault(nil) == "nftables has no table inet pipelined")
        let dormant = rules.nftables.replacing("pipelined {\n", with: "pipelined {\n    flags dormant\n")
        #expect(rules.tableFault(dormant) == "the table inet pipelined is dormant")
        for other in [try self.rules(15003), try self.rules(node: "mark 0x100")] {
            #expect(rules.tableFault(other.nftables) == "the table inet pipelined was installed from another config")
        }
    }

    @Test("a table without any one of its lines is a fault") func everyLine() throws {
        let rules = try rules()
        let lines = rules.nftables.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        for (index, line) in lines.enumerated() where index > 2 && line.hasPrefix("        ") {
            var fewer = lines
            fewer.remove(at: index)
            #expect(rules.tableFault(fewer.joined(separator: "\n")) != nil, "without \(line)")
        }
        let added = rules.nftables.replacing("    chain refuse {\n", with: "    chain refuse {\n        accept\n")
        #expect(rules.tableFault(added) == "the chain refuse of the table inet pipelined was changed")
    }

    @Test("no listing traps: every prefix, and every byte changed") func hostile() throws {
        let rules = try rules()
        let bytes = Array(rules.nftables.utf8)
        for end in bytes.indices {
            _ = rules.tableFault(String(decoding: bytes[..<end], as: UTF8.self))
            for byte in [0, 0x20, 0x7B, 0x7D, 0xFF] as [UInt8] {
                var changed = bytes
                changed[end] = byte
                _ = rules.tableFault(String(decoding: changed, as: UTF8.self))
            }
        }
    }

    @Test("a route answers for its own table alone") func routes() throws {
        let questions = try rules().routingQuestions
        #expect(questions.count == 2)
        let route = try #require(questions.first)
        #expect(route.isAnswered(by: "local default dev lo table 28778 metric 1024 pref medium"))
        #expect(!route.isAnswered(by: "local default dev lo table 257 metric 1024 pref medium"))
        #expect(!route.isAnswered(by: "unreachable default dev lo table 28778 metric 1024"))
        #expect(!route.isAnswered(by: ""))
    }
}
