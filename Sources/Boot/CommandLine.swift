import VMCore

/// A kernel command line: checked text, and where it is put.
enum KernelCommandLine {
    /// - Parameter limit: the most bytes the kernel takes, without a terminating zero.
    /// - Throws: `commandLineTooLong`, or `commandLineByte` for NUL, newline and their like: a kernel would end the
    ///   line there, or print it over several, and what follows would be silently lost.
    static func check(_ text: String, limit: UInt64) throws(BootError) {
        let count = text.utf8.count
        guard count <= limit else {
            throw .commandLineTooLong(count: count, limit: Int(truncatingIfNeeded: limit))
        }
        if let bad = text.utf8.first(where: { ($0 < 0x20 && $0 != 0x09) || $0 == 0x7F }) { throw .commandLineByte(bad) }
    }

    /// Checks `text` and writes it with a terminating zero at `BootLayout.commandLine`.
    static func place(_ text: String, limit: UInt64, in plan: inout MemoryPlan) throws(BootError) {
        try check(text, limit: min(limit, BootLayout.commandLineLimit - 1))
        let bytes = Array(text.utf8) + [0]
        try plan.claim("the command line", at: BootLayout.commandLine, count: UInt64(bytes.count))
        let memory = plan.memory
        try placing { () throws(GuestMemoryError) in try memory.write(bytes, at: BootLayout.commandLine) }
    }
}
