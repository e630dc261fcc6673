import PipelineKeep

/// What a keeper makes of any datagram: what it passes on is no more than it got, and what it calls a descriptor can stand
/// among names.
enum NotifyProperties {
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        let message = NotifyMessage(bytes)
        guard NotifyMessage.isName(message.name) else { return "\(message.name) is no name" }
        if let process = message.mainProcess, process <= 1 { return "the main process is \(process)" }
        for line in message.rest.split(separator: "\n") {
            let key = line.prefix { $0 != "=" }
            guard line.contains("=") else { return "\(line) says nothing" }
            if ["FDSTORE", "FDSTOREREMOVE", "FDNAME", "FDPOLL", "MAINPID"].contains(key) {
                return "\(key) is passed on"
            }
        }
        // What is passed on is passed on the same by the next one.
        let again = NotifyMessage(Array(message.rest.utf8))
        let fits = message.rest.utf8.count <= NotifyMessage.limit
        return again.rest == message.rest || !fits ? nil : "\(again.rest) is passed on of \(message.rest)"
    }
}
