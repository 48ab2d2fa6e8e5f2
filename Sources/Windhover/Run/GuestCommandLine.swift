/// The kernel's command line: what every Linux guest here needs, then what the user adds.
enum GuestCommandLine {
    /// - Parameters:
    ///   - isLinux: other kernels get the user's words only.
    ///   - isOurs: the image is of the store, whose init knows our words.
    ///   - hasDisk: the image's init looks for a system on it, unless the user says where one is, or has a script run.
    ///   - portCount: the image's init waits for so many ports of the console, and gives them their names.
    static func text(
        isLinux: Bool, isOurs: Bool, hasPCI: Bool = false, hasDisk: Bool = false, portCount: Int = 0, append: String, terminal: Terminal.Size?
    ) -> String {
        guard isLinux else { return append }
        let given = append.split(separator: " ")
        func names(_ key: String) -> Bool { given.contains { $0 == key || $0.hasPrefix(key + "=") } }
        var words: [String] = []
        if !names("console") { words.append("console=ttyS0") }
        // A panicked kernel resets at once, which ends the run with a status of its own.
        if !names("panic") { words.append("panic=-1") }
        // Where there is no PCI bus: the access mechanism untried, and nothing scanned. `off` would have the kernel complain that
        // it found no mechanism.
        if !hasPCI, !names("pci") { words.append("pci=conf1,noearly") }
        if isOurs {
            if !names("quiet"), !names("loglevel"), !names("debug") { words.append("quiet") }
            if hasDisk, !names("windhover.root"), !names("windhover.exec") { words.append("windhover.root=auto") }
            if portCount > 0 { words.append("windhover.ports=\(portCount)") }
            if let terminal {
                words.append("windhover.rows=\(terminal.rows)")
                words.append("windhover.cols=\(terminal.columns)")
            }
        }
        if !append.isEmpty { words.append(append) }
        return String(words: words)
    }
}
