import ArgumentParser
import PipelineInspect

/// What the three subcommands of `decode` have in common.
struct DecodeInput: ParsableArguments {
    @Flag(help: "One JSON object a line instead of text.")
    var json = false

    @Flag(help: "The input is one hex string a line; an empty line is an empty input.")
    var hex = false

    @Argument(help: "The input file; - or nothing: standard input.", completion: .file())
    var file: String = "-"

    static let limit = 256 << 20

    /// Decodes each input of the file on its own.
    /// - Parameter raw: the inputs in a file that is not hex.
    func run(_ subject: Decode.Subject, max: Int = 0, raw: ([UInt8]) -> [[UInt8]]) throws {
        let bytes = try Output.read(file, limit: DecodeInput.limit)
        var unusable = false
        var output: [UInt8] = []
        if hex {
            for (number, line) in Decode.lines(bytes).enumerated() {
                if let input = Decode.hex(line) {
                    append(subject, input, max, &output)
                } else {
                    unusable = true
                    // Keeps the output in step with the input.
                    output += Array((json ? "{\"error\":\"not hex\"}\n" : "not hex\n").utf8)
                    Output.error("error: line \(number + 1) is not hex: write an even number of digits 0-9, a-f")
                }
            }
        } else {
            for input in raw(bytes) { append(subject, input, max, &output) }
        }
        Output.write(output)
        if unusable { throw ExitCode.wrongInput }
    }

    private func append(_ subject: Decode.Subject, _ input: [UInt8], _ max: Int, _ output: inout [UInt8]) {
        if json {
            output += Decode.json(subject, input, limit: max)
        } else {
            output += Array(Decode.text(subject, input, limit: max).utf8)
        }
        output.append(0x0A)
    }
}

struct DecodeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "decode",
        abstract: "Show what the parsers read in some bytes.",
        discussion: """
            Malformed input is an answer too. The exit code is 1 only if the input can't be read, or a line of --hex \
            is not hex.

            EXAMPLES
              pipelined decode hello --json hello.bin
              echo 504f5859 | pipelined decode proxy --hex --json
              printf 'B\\303\\274cher.example\\n' | pipelined decode hostname
            """,
        subcommands: [DecodeHello.self, DecodeProxy.self, DecodeHostname.self])
}

struct DecodeHello: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hello",
        abstract: "A TLS ClientHello, from the first byte of a stream.",
        discussion: """
            JSON: {"outcome":"ok|no_sni|incomplete|not_tls|too_large|malformed","server_name":"…"|null,"alpn":["…"], \
            "ech":true|false,"bytes":n}. The server name is as on the wire, one character a byte (ISO 8859-1). \
            `bytes` is the hello's length, 0 if it is not complete.

            EXAMPLES
              pipelined decode hello hello.bin
              pipelined decode hello --hex --json --max 16384 < hellos.hex
            """)

    @OptionGroup var input: DecodeInput

    @Option(help: ArgumentHelp("The largest hello that is accepted.", valueName: "bytes"))
    var max = 8192

    func validate() throws {
        guard (1...(1 << 24)).contains(max) else { throw ValidationError("--max takes 1 to 16777216 bytes.") }
    }

    func run() throws { try input.run(.hello, max: max) { [$0] } }
}

struct DecodeProxy: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "proxy",
        abstract: "A PROXY protocol header, version 1 or 2.",
        discussion: """
            JSON: {"outcome":"ok|incomplete|malformed|not_proxy","version":1|2,"command":"proxy|local", \
            "family":"inet|inet6|unix|unspec","transport":"stream|dgram|unspec","source":"addr:port", \
            "destination":"addr:port","tlvs":[{"type":n,"value":"hex"}],"bytes":n}. A missing field is null. `bytes` \
            is the header's length, 0 if it is not complete.

            EXAMPLES
              pipelined decode proxy header.bin
              pipelined decode proxy --hex --json < headers.hex
            """)

    @OptionGroup var input: DecodeInput

    func run() throws { try input.run(.proxy) { [$0] } }
}

struct DecodeHostname: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hostname",
        abstract: "Hostnames, one a line: the canonical form in a config, and as SNI.",
        discussion: """
            JSON: {"config":"name"|null,"wire":"name"|null}. `config` is the canonical form of a route's hostname or \
            pattern (IDNA to A-labels). `wire` is that of the same bytes as SNI (ASCII only). null: no hostname.

            EXAMPLES
              pipelined decode hostname names.txt
              echo '*.Example.COM.' | pipelined decode hostname --json
            """)

    @OptionGroup var input: DecodeInput

    func run() throws { try input.run(.hostname) { Decode.lines($0).map(Array.init) } }
}
