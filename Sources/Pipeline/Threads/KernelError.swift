import CLinux
import Glibc

/// An errno's name, as Glibc has it: `ENOSPC`.
package func errorName(_ error: some BinaryInteger) -> String {
    String(cString: cl_error_name(Int32(clamping: error)))
}

/// An errno's meaning, as Glibc has it: `No space left on device`.
package func errorText(_ error: Int32) -> String { String(cString: strerror(error)) }

/// The error of a system call, for messages without better words: `kernel error ENOSPC`.
/// - Parameter error: an errno, positive.
package func kernelError(_ error: some BinaryInteger) -> String { "kernel error \(errorName(error))" }
