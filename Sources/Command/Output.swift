import ArgumentParser
import CLinux
import Glibc
import PipelineHost

/// Standard output and standard error, without buffering, so that nothing is lost at exit.
enum Output {
    static func write(_ bytes: [UInt8], to descriptor: Int32 = 1) {
        _ = bytes.withUnsafeBytes { cl_write_all(descriptor, $0.baseAddress, $0.count) }
    }
    static func text(_ text: String) { write(Array(text.utf8)) }
    static func line(_ text: String) { write(Array((text + "\n").utf8)) }
    static func error(_ text: String) { write(Array((text + "\n").utf8), to: 2) }
    static func errorText(_ text: String) { write(Array(text.utf8), to: 2) }

    static func exit(_ code: ExitCode) -> Never { Glibc.exit(code.rawValue) }

    /// Does it with each file, whatever comes of the others.
    /// - Throws: the worst exit code.
    static func each(_ files: [String], _ body: (String) throws -> Void) throws {
        var worst: ExitCode?
        for file in files {
            do {
                try body(file)
            } catch let code as ExitCode {
                worst = ExitCode(max(code.rawValue, worst?.rawValue ?? 0))
            }
        }
        if let worst { throw worst }
    }

    /// The file's bytes; prints the error and ends the process if it can't be read.
    static func read(_ path: String, limit: Int) throws -> [UInt8] {
        do throws(FileError) {
            return path == "-" ? try Files.readStandardInput(limit: limit) : try Files.read(path, limit: limit)
        } catch {
            Output.error("error: \(error)")
            throw ExitCode.wrongInput
        }
    }
}
