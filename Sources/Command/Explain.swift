import ArgumentParser
import Pipeline
import PipelineAdmin
import PipelineInspect
import PipelineLanguage
import PipelineNode
import PipelineRouting

struct Explain: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Trace what would happen to one connection, stage by stage.",
        discussion: """
            Compiles the config, reads its routes, and runs the pipeline of the listener that would get the \
            connection. A dry run: nothing is sent. Round robin starts at the first backend. Without CONFIG a running \
            node answers from its current limits, round-robin positions, and backends that are out.

            With --sni the client sends a ClientHello that asks for NAME; with --bytes it sends what is in FILE, and \
            then nothing more; with neither, a ClientHello without a name on a TLS listener, nothing on a raw one.

            Exit code 1 if the connection would be refused, or nothing listens there.

            EXAMPLES
              pipelined explain edge.pipeline --to 192.0.2.1:443 --from 198.51.100.7:40000 --sni app.example.com
              pipelined explain edge.pipeline --to '[2001:db8::1]:443' --from '[2001:db8::9]:40000' --bytes hello.bin
              pipelined explain --to '[2001:db8::1]:443' --from '[2001:db8::9]:40000' --sni app.example.com
              pipelined explain edge.pipeline --to '[2001:db8::1]:10005' --from '[2001:db8::9]:40000' --json
            """)

    @Argument(help: "The config file; without it, ask a running node.", completion: .file())
    var config: String?

    @Option(
        help: ArgumentHelp(
            "The running node's admin socket (default: \(NodeSettings.usualAdminSocket)).", valueName: "socket"),
        completion: .file())
    var admin: String?

    @Option(
        help: ArgumentHelp("The address that the client connects to.", valueName: "addr:port"),
        transform: Explain.endpoint)
    var to: Endpoint

    @Option(help: ArgumentHelp("The client's own address.", valueName: "addr:port"), transform: Explain.endpoint)
    var from: Endpoint

    @Option(help: ArgumentHelp("The server name in the client's ClientHello.", valueName: "name"))
    var sni: String?

    @Option(
        help: ArgumentHelp("A file with the client's first bytes; - is standard input.", valueName: "file"),
        completion: .file())
    var bytes: String?

    @Flag(help: "One JSON object.")
    var json = false

    func validate() throws {
        if sni != nil && bytes != nil { throw ValidationError("--sni and --bytes can't be used together: choose one.") }
        guard to.address.isIPv4 == from.address.isIPv4 else {
            throw ValidationError("--to and --from are of different families: use two IPv4 or two IPv6 addresses.")
        }
        if config != nil && admin != nil {
            throw ValidationError("CONFIG and --admin can't be used together: choose one.")
        }
        if let sni, !(1...255).contains(sni.utf8.count) { throw ValidationError("--sni takes 1 to 255 bytes.") }
    }

    func run() throws {
        guard let config else {
            let request = AdminRequest(.explain(try question(limit: 32767)), isText: !json)
            return try AdminOptions.ask(request, at: admin ?? NodeSettings.usualAdminSocket)
        }
        let text = try Output.read(config, limit: SourceText.limit)
        let loaded = ConfigLoader.load(text, file: config, filters: PipelinedCommand.filters)
        Output.errorText(loaded.diagnosticText)
        guard let node = loaded.node else { throw ExitCode.wrongInput }
        let explanation = Explainer(node).explain(try question(limit: PeekNeed.limit))
        if json { Output.line(explanation.json) } else { Output.text(explanation.text) }
        if explanation.outcome != .relayed { throw ExitCode.wrongInput }
    }

    private func question(limit: Int) throws -> Explainer.Question {
        var first = Explainer.FirstBytes.usual
        if let bytes { first = .bytes(try Output.read(bytes, limit: limit)) }
        if let sni { first = .hello(Explain.wireName(sni)) }
        return Explainer.Question(to: to, from: from, first: first)
    }

    private static func endpoint(_ text: String) throws -> Endpoint {
        guard let endpoint = Endpoint(text) else {
            throw ValidationError("write an address and a port, like 192.0.2.1:443 or '[2001:db8::1]:443'.")
        }
        return endpoint
    }

    /// A browser sends the A-label form of an international name; ASCII goes as it is typed.
    private static func wireName(_ name: String) -> [UInt8] {
        guard !name.utf8.allSatisfy({ $0 < 0x80 }) else { return Array(name.utf8) }
        return Array(((try? Hostname.canonical(name))?.string ?? name).utf8)
    }
}
