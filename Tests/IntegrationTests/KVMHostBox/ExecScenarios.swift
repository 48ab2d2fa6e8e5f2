extension Scenario {
    /// hover exec, over the box's own tree.
    private static func exec(_ options: String, _ script: String, before: String = "exec ", after: String = "") -> String {
        "\(before)hover exec --engine kvm --memory 256M \(options) -- sh -c \(quoted(script))\(after)"
    }

    /// Commands in guests on KVM: what they get and say, what they leave behind, and how they end.
    static func commands(_ box: Box) -> [Scenario] {
        [
            Scenario(
                "exec: input, output and exit status", exec("--cpus 2", "cat; echo processors: $(nproc); pwd; echo to the other >&2; exit 7"),
                input: "typed\n", status: 7, output: ["typed", "processors: 2", "/tmp/work"], error: ["to the other"]),
            Scenario(
                "exec: writes vanish, but for those under --rw",
                exec(
                    "--rw", "echo one >here; echo two >/etc/there; cat here /etc/there", before: "",
                    after: "; status=$?; echo left: $(cat here) $(ls /etc/there 2>/dev/null); exit $status"),
                boxes: [.amd], status: 0, output: ["one\ntwo\nleft: one\n"]),
            Scenario(
                "exec: a terminal, by memory-mapped registers",
                exec("--transport mmio --user guest --tty always", "id -u; stty size; tty; ls /sys/bus/platform/drivers/virtio-mmio"),
                boxes: [.amd], status: 0, output: ["1000", "24 80", "/dev/pts/0", "LNRO0005"]),
            Scenario(
                "exec: no such command", "exec hover exec --engine kvm --memory 256M -- no-such-command", boxes: [.amd], status: 127,
                error: ["no-such-command"]),
            Scenario(
                "exec: time-out", exec("--timeout \(box.brief)", "sleep 1000"), boxes: [.amd], status: 124, error: ["--timeout"]),
            Scenario(
                "exec: a signal that the command takes",
                exec(
                    "", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done", before: "",
                    after: " >out & for i in $(seq 1 300); do grep -q ready out && break; sleep 0.1; done; kill -TERM $!; wait $!"),
                boxes: [.amd], status: 3),
            // What a panic says is several lines.
            Scenario(
                "exec: a panic", exec("--cpus 2", "echo c > /proc/sysrq-trigger; sleep 1000", after: " 2>&1"), boxes: [.amd], status: 255,
                output: ["hover: the guest's kernel panicked: Kernel panic - not syncing: sysrq triggered crash"]),
            Scenario(
                "exec: a guest that powers off", exec("", "echo o > /proc/sysrq-trigger; sleep 1000"), boxes: [.amd], status: 70,
                error: ["the guest powered off before the command had ended"]),
            Scenario(
                "exec: out of memory", "exec hover exec --engine kvm --memory 160M -- tail /dev/zero", boxes: [.amd], status: 137,
                error: ["the guest was out of memory"]),
        ]
    }
}
