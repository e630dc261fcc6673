import ArgumentParser
import Pipeline

/// The flow filter options of `top` and `egress report`.
struct FlowFilter: ParsableArguments {
    @Option(help: ArgumentHelp("Only this instance.", valueName: "id"))
    var instance: String?
    @Option(help: ArgumentHelp("Only this env; its id alone is enough if it is unique.", valueName: "org/app/env"))
    var env: String?
    @Option(help: ArgumentHelp("Only this org.", valueName: "id"))
    var org: String?
    @Option(help: ArgumentHelp("Only to this address.", valueName: "address"))
    var destination: String?
    @Option(help: ArgumentHelp("Only to this port.", valueName: "port"))
    var port: UInt16?

    var address: IPAddress? { destination.flatMap { IPAddress($0) } }

    func validate() throws {
        if let destination, address == nil {
            throw ValidationError("'\(destination)' is not an address; write 192.0.2.1 or 2001:db8::1.")
        }
    }
}
