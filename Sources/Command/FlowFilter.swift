import ArgumentParser
import Pipeline

/// Which flows a question is about: what `top` and `egress report` both take.
struct FlowFilter: ParsableArguments {
    @Option(help: ArgumentHelp("Only of this instance.", valueName: "id"))
    var instance: String?
    @Option(help: ArgumentHelp("Only of this env; its own id will do if no other has it.", valueName: "org/app/env"))
    var env: String?
    @Option(help: ArgumentHelp("Only of this org.", valueName: "id"))
    var org: String?
    @Option(help: ArgumentHelp("Only to this address.", valueName: "address"))
    var destination: String?
    @Option(help: ArgumentHelp("Only to this port.", valueName: "port"))
    var port: UInt16?

    var address: IPAddress? { destination.flatMap { IPAddress($0) } }

    func validate() throws {
        if let destination, address == nil {
            throw ValidationError("'\(destination)' is no address; write 192.0.2.1 or 2001:db8::1.")
        }
    }
}
