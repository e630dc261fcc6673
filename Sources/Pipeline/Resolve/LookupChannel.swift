import CCares
import CLinux
import FilterBackendSelect
import PipelineHost

/// Why a lookup can't begin.
struct LookupStartError: Error {
    let problem: String
}

/// A channel of c-ares for one lookup.
enum LookupChannel {
    static let hostList = "/etc/resolv.conf"
    /// The C library reads no more servers than three.
    private static let hostListLimit = 1 << 16
    private static let nothing = "/dev/null"

    /// c-ares reads the host's list by a path that leads to what was opened here: nothing that blocks, and no other file
    /// meanwhile. It reads no other file: with `lookups` given, it does not look for nsswitch.conf and its like.
    static func make(_ values: ResolveSettings.Values) throws(LookupStartError) -> ares_channel {
        guard values.nameservers.isEmpty, let file = try openHostList() else {
            let channel = try make(values, list: nothing)
            let servers = values.nameservers.map { "\($0)" }.joined(separator: ",")
            if !servers.isEmpty { _ = ares_set_servers_ports_csv(channel, servers) }
            return channel
        }
        defer { _ = cl_close(file) }
        // The thread's: workers have tables of descriptors of their own.
        return try make(values, list: "/proc/thread-self/fd/\(file)")
    }

    /// Nil: there is none, and the server is 127.0.0.1, as for the C library.
    private static func openHostList() throws(LookupStartError) -> Int32? {
        do throws(FileError) {
            return try Files.open(hostList, limit: hostListLimit).file
        } catch {
            guard error.isMissing else { throw LookupStartError(problem: "\(error.path): \(error.problem)") }
            return nil
        }
    }

    private static func make(_ values: ResolveSettings.Values, list: String) throws(LookupStartError) -> ares_channel {
        var options = ares_options()
        options.timeout = Int32(clamping: values.timeout.milliseconds)
        options.tries = Int32(clamping: values.retries + 1)
        // What it has already, it gives back even where no other server answers.
        options.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES
        let mask =
            ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_FLAGS | ARES_OPT_RESOLVCONF | Int32(ARES_OPT_LOOKUPS)
        var made: ares_channel?
        let failed = list.withCString { list in
            "b".withCString { lookups in
                options.resolvconf_path = UnsafeMutablePointer(mutating: list)
                options.lookups = UnsafeMutablePointer(mutating: lookups)
                return ares_init_options(&made, &options, Int32(mask))
            }
        }
        guard failed == ARES_SUCCESS, let made else {
            throw LookupStartError(problem: "can't start a lookup: \(AnswerReader.text(failed))")
        }
        return made
    }
}
