import FilterCatalog
import Foundation
import Pipeline
import PipelineLanguage
import Testing

/// A stage runs as soon as what it reads is known and no stage above can change it: the compiler says which.
@Suite("Stages that don't wait for a client's first bytes")
struct StageOrderTests {
    private static let blocks = """
        set lbs { 2001:db8:10::/48 }
        limit per_client {
            key         client/64
            concurrent  5
            table       1k
        }
        limit per_listener {
            key    listener
            rate   1/s
            table  1k
        }
        limit per_env {
            key         env
            concurrent  5
            table       1k
        }

        """

    private func chain(_ stages: [String]) throws -> Turns {
        let text =
            StageOrderTests.blocks + "pipeline p {\n" + stages.map { "    \($0)\n" }.joined()
            + "}\nlisten [::]:443 tls_passthrough via p\n"
        let compilation = compile(Array(text.utf8), file: "x", catalog: catalog)
        let program = try #require(
            compilation.program, "\(render(compilation.diagnostics, source: compilation.source))")
        return withExtendedLifetime(program) {
            let chain = program.chains[0]
            return Turns(
                names: chain.stages.buffer.map(\.source), turns: chain.stages.buffer.indices.map { chain.turn(of: $0) })
        }
    }

    private struct Turns {
        let names: [String]
        let turns: [Chain.Turn]
        func turn(_ stage: String) -> Chain.Turn? {
            names.firstIndex { $0.hasPrefix(stage) }.map { turns[$0] }
        }
    }

    @Test("R27: limits and address rules run at accept below `sni`, and below an `anti_spoof` that believes nobody")
    func atAccept() throws {
        let chain = try chain([
            "anti_spoof refuse others", "sni timeout 3s", "address deny bogons", "rate_limit per_client",
            "rate_limit per_listener", "backend", "rate_limit per_env", "account",
        ])
        #expect(chain.turn("address") == .atAccept)
        #expect(chain.turn("rate_limit per_client") == .atAccept)
        #expect(chain.turn("rate_limit per_listener") == .atAccept)
        for late in ["sni", "backend", "rate_limit per_env", "account"] { #expect(chain.turn(late) == .inOrder) }
    }

    @Test("R17: where senders are believed, what goes by the client waits for theirs alone; nothing else waits")
    func believed() throws {
        let chain = try chain([
            "anti_spoof accept from @lbs, refuse others", "address deny bogons", "rate_limit per_client",
            "rate_limit per_listener", "address deny to bogons", "sni timeout 3s", "backend", "rate_limit per_env",
        ])
        #expect(chain.turn("address deny bogons") == .atAcceptUnless(0))
        #expect(chain.turn("rate_limit per_client") == .atAcceptUnless(0))
        #expect(chain.turn("rate_limit per_listener") == .atAccept)
        #expect(chain.turn("address deny to") == .atAccept)
        for late in ["sni", "backend", "rate_limit per_env"] { #expect(chain.turn(late) == .inOrder) }
    }

    @Test("R19: who sends is known at accept, and so are its limits")
    func identity() throws {
        let chain = try chain([
            "sni timeout 3s", "anti_spoof source assigned", "rate_limit per_env", "backend round_robin",
        ])
        #expect(chain.turn("anti_spoof") == .atAccept)
        #expect(chain.turn("rate_limit") == .atAccept)
        #expect(chain.turn("backend") == .inOrder)
    }

    @Test("no shipped config has a limit by client that a silent client is not in", arguments: ConfigFileTests.files)
    func shipped(_ name: String) throws {
        let text = [UInt8](try Data(contentsOf: ConfigFileTests.root.appendingPathComponent("config/\(name)")))
        let program = try #require(compile(text, file: name, catalog: catalog).program)
        for chain in program.chains.buffer {
            for (number, stage) in chain.stages.buffer.enumerated()
            where stage.filter.descriptor.keyword == "rate_limit" && stage.facts.reads.contains(.client) {
                let isFirst = chain.stages.buffer.prefix(number).allSatisfy { $0.peek == nil }
                #expect(isFirst || chain.turn(of: number) != .inOrder, "\(chain.name): \(stage.source)")
            }
        }
    }
}
