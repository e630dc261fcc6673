import ArgumentParser
import Pipeline
import PipelineAdmin
import PipelineNode

struct Apply: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Push a document or a change of desired state to a running node.",
        discussion: """
            The answer says what was done. Exit code 0: all of it is in force; 1: refused, and nothing was changed; \
            4: a guard holds it, or it waits behind what is held; 5: in force but for objects that the answer names; \
            6: the disk takes nothing, and what takes away is in force without being durable: make room, send it again. A \
            node whose routes come from a file refuses it, and names the file. Only the node's own user and root may push.

            With --stream FILE has several, one behind the other, a JSON object each. All go over one connection, and \
            none waits for the answer of the one before; answers come in order, a line each. The exit code is 1 if \
            one was refused, else 6 if one was taken in part, else 4 if one is held, else 5 if objects are quarantined.

            EXAMPLES
              pipelined apply state.json
              pipelined apply - --json < change.json
              tail -f changes.ndjson | pipelined apply --stream -
              pipelined apply --confirm held-1796040000000     what is held is meant; what waits behind it follows
              pipelined apply --discard held-1796040000000     it is not; what waits behind it follows
            """)

    @Argument(help: "The document or the change; - is standard input.", completion: .file())
    var file: String?

    @Flag(help: "Push each JSON object of FILE as it comes, over one connection.")
    var stream = false

    @Option(help: ArgumentHelp("Confirm what is held under this id, instead of pushing.", valueName: "id"))
    var confirm: String?

    @Option(help: ArgumentHelp("Drop what is held under this id, instead of pushing.", valueName: "id"))
    var discard: String?

    @Flag(help: "Also apply a revision that is lower than the applied one.")
    var older = false

    @OptionGroup var options: AdminOptions

    func validate() throws {
        guard [file, confirm, discard].count(where: { $0 != nil }) == 1 else {
            throw ValidationError("Give a FILE, or --confirm or --discard with an id: one of them.")
        }
        if older || stream, file == nil { throw ValidationError("--older and --stream go with a FILE.") }
        for (name, id) in [("--confirm", confirm), ("--discard", discard)] {
            guard let id, !(1...128).contains(id.utf8.count) else { continue }
            throw ValidationError("\(name) takes an id of 1 to 128 bytes.")
        }
    }

    func run() throws {
        if let confirm { return try options.ask(.confirm(id: confirm), errorsTo: 2) }
        if let discard { return try options.ask(.discard(id: discard), errorsTo: 2) }
        guard let file else { return }
        if stream { return try StreamedPushes(file: file, isOlder: older, options: options).run() }
        let bytes = try Output.read(file, limit: StateUpload.longest)
        guard !bytes.isEmpty else {
            Output.error("error: \(file == "-" ? "standard input" : file) is empty")
            throw ExitCode.wrongInput
        }
        try options.ask(.apply(length: bytes.count, isOlder: older), body: bytes, errorsTo: 2)
    }
}

struct State: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Desired state of a running node.", subcommands: [Export.self])

    struct Export: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Write what is in force as a document.",
            discussion: """
                Exit code 1, and nothing on standard output, if the node keeps no desired state.

                EXAMPLES
                  pipelined state export > state.json
                """)

        @Option(help: ArgumentHelp("The node's admin socket.", valueName: "socket"), completion: .file())
        var admin = NodeSettings.usualAdminSocket

        // As text it comes behind an exit code, so that nobody has to look into it for an error.
        func run() throws {
            try AdminOptions.ask(AdminRequest(.exportState, isText: true), at: admin, errorsTo: 2)
        }
    }
}
