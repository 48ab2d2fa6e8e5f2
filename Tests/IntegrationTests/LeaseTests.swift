import Foundation
import Testing

@testable import Windhover

extension SlowTiers {
    /// What becomes of an address that a DHCP server gave for a time, on a TAP interface in a network namespace of the test's own.
    @Suite(.serialized) struct LeaseTests {
        /// A server that counts requests and does with each what its word says: `ack`, `nak` or nothing. Whatever else it hears it
        /// prints too, with how it came: a socket that is bound to the broadcast address gets nothing but broadcasts.
        private static let server = #"""
            use strict; use warnings; use Socket; $| = 1;
            my @words = @ARGV; my ($given, $ignored) = (0, 0);
            my %sockets = map {
                socket(my $s, PF_INET, SOCK_DGRAM, 0) or die "socket: $!";
                setsockopt($s, SOL_SOCKET, $_, 1) or die "option: $!" for SO_REUSEADDR, SO_BROADCAST;
                setsockopt($s, SOL_SOCKET, 25, "t0\0") or die "t0: $!";
                bind($s, sockaddr_in(67, inet_aton($_->[0]))) or die "bind: $!";
                ($_->[1] => $s)
            } (['10.9.0.1', 'unicast'], ['255.255.255.255', 'broadcast']);
            for (;;) {
                my $in = ''; vec($in, fileno($_), 1) = 1 for values %sockets;
                select($in, undef, undef, undef);
                for my $way (sort keys %sockets) {
                    next unless vec($in, fileno($sockets{$way}), 1);
                    recv($sockets{$way}, my $m, 1500, 0);
                    my ($type) = substr($m, 240) =~ /^\x35\x01(.)/s or next;
                    my $ciaddr = inet_ntoa(substr($m, 12, 4));
                    my ($asked) = substr($m, 240) =~ /\x32\x04(.{4})\x36\x04/s;
                    my ($answer, $address) = (0, "10.9.0." . (20 + $given));
                    if (ord $type == 1) {
                        # One that has lost an address hears nothing at first, so that it is seen without.
                        print "discover $way\n";
                        $answer = 2 unless $given > 0 && $ignored++ % 2 == 0;
                    } else {
                        my $word = @words ? shift @words : 'silent';
                        print "request $way $ciaddr ", (defined $asked ? inet_ntoa($asked) : '-'), " $word\n";
                        $answer = 5 if $word =~ /^ack|^last/; $answer = 6 if $word eq 'nak';
                        $given++ if $word =~ /^nak|^drop/;
                    }
                    next unless $answer;
                    # Five seconds, to be renewed after one and rebound after three; the last is for good.
                    my $for = @words ? pack('N', 5) : "\xff\xff\xff\xff";
                    my $options = "\x35\x01" . chr($answer) . "\x36\x04" . inet_aton('10.9.0.1');
                    $options .= "\x01\x04\xff\xff\xff\x00\x03\x04" . inet_aton('10.9.0.1') . "\x33\x04$for"
                        . "\x3a\x04" . pack('N', 1) . "\x3b\x04" . pack('N', 3) if $answer != 6;
                    my $reply = "\x02\x01\x06\x00" . substr($m, 4, 4) . ("\0" x 2) . substr($m, 10, 2)
                        . substr($m, 12, 4) . ($answer == 6 ? "\0" x 4 : inet_aton($address)) . ("\0" x 8) . substr($m, 28, 208)
                        . "\x63\x82\x53\x63" . $options . "\xff";
                    my $to = $answer != 6 && $ciaddr ne '0.0.0.0' ? $ciaddr : '255.255.255.255';
                    send($sockets{unicast}, $reply, 0, sockaddr_in(68, inet_aton($to))) or print "send: $!\n";
                }
            }
            """#

        private func isolated() async throws {
            try Exec.needs("busybox", package: "busybox-static")
            let isolated = try await ChildProcess.run(["unshare", "-n", "/bin/test", "-c", "/dev/net/tun"], deadline: 10)
            guard isolated.status == 0 else {
                try Test.cancel("no network namespace, or no /dev/net/tun, for a TAP interface of the test's own: \(isolated.error)")
            }
            try await Exec.image()
        }

        /// The guest that `"$@"` starts, and before it can ask a server, which `$serve` starts in the background.
        private func around(_ serve: String) -> String {
            """
            "$@" & pid=$!
            for i in $(seq 1 300); do busybox ip link show t0 > /dev/null 2>&1 && break; sleep 0.1; done
            busybox ip addr add 10.9.0.1/24 dev t0; busybox ip link set t0 up
            \(serve) & server=$!
            wait $pid; status=$?; kill $server; exit $status
            """
        }

        /// Renewed in its time, from the server that gave it and else from any; given up when it is refused or over, and asked for anew; and
        /// where it is for good nothing is done.
        @Test func anAgentsLeaseIsRenewedOrGivenUp() async throws {
            try Exec.needs("perl", package: "perl-base")
            try await isolated()
            let scratch = try ExecScratch()
            try scratch.write(Self.server, to: "server")
            let words = ["ack", "ack", "ack", "silent", "ack", "ack", "nak", "ack", "silent", "drop", "last"]
            let guest = """
                last=none
                while :; do
                    now=$(busybox ip -4 addr show scope global | grep -o '10.9.0.[0-9]*/')
                    [ "$now" = "$last" ] || { echo "${now:-none} $(cut -d ' ' -f 1 /proc/uptime)"; last=$now; }
                    [ "$now" = 10.9.0.22/ ] && break
                    sleep 0.1
                done
                busybox ip route
                a=$(grep ^voluntary /proc/1/status); sleep 2; b=$(grep ^voluntary /proc/1/status); [ "$a" = "$b" ] && echo 'it sleeps'
                """
            let serve = "perl '\(scratch.file("server"))' \(words.joined(separator: " ")) > '\(scratch.file("log"))' 2>&1"
            let result = try await ChildProcess.run(
                ["unshare", "-n", "bash", "-c", around(serve), "bash"] + Exec.words(["--net", "tap:t0"], ["sh", "-c", guest]),
                deadline: Exec.deadline)
            let log = ExpectedOutput.lines(of: scratch.text("log") ?? "")
            #expect(result.status == 0, "\(result.summary)\n\(log)")
            let lines = ExpectedOutput.lines(of: result.output)
            try #require(lines.count == 8, "\(result.summary)\n\(log)")
            let (held, at) = (lines[..<5].map { $0.split(separator: " ")[0] }, lines[..<5].map { Double($0.split(separator: " ")[1]) ?? 0 })
            #expect(held == ["10.9.0.20/", "none", "10.9.0.21/", "none", "10.9.0.22/"], "\(result.summary)\n\(log)")
            // Five seconds from the last answer on; the second begins three to five seconds behind the first's refusal.
            #expect(at[1] - at[0] > 5, "it was held no longer than its time: \(result.summary)\n\(log)")
            #expect(at[3] - at[1] > 7, "it was given up before its time: \(result.summary)\n\(log)")
            #expect(lines[5] == "default via 10.9.0.1 dev eth0 " && lines[6].hasPrefix("10.9.0.0/24 dev eth0 "), "\(result.summary)")
            #expect(lines[7] == "it sleeps", "\(result.summary)")
            #expect(result.error.contains("refused to renew") && result.error.contains("no DHCP server renewed"), "\(result.summary)")
            // One that is sent twice is one: before the guest's interface hears, answers are lost.
            let first = try #require(log.firstIndex { $0.hasPrefix("request") })
            let expected = [
                "request broadcast 0.0.0.0 10.9.0.20 ack", "request unicast 10.9.0.20 - ack", "request unicast 10.9.0.20 - ack",
                "request unicast 10.9.0.20 - silent", "request broadcast 10.9.0.20 - ack", "request unicast 10.9.0.20 - ack",
                "request unicast 10.9.0.20 - nak", "discover broadcast", "discover broadcast", "request broadcast 0.0.0.0 10.9.0.21 ack",
                "request unicast 10.9.0.21 - silent", "request broadcast 10.9.0.21 - drop", "discover broadcast", "discover broadcast",
                "request broadcast 0.0.0.0 10.9.0.22 last",
            ]
            #expect(Array(log[first...]) == expected)
        }

        /// The small root's client stays to renew, which leaves the address and its routes as they are.
        @Test func theSmallRootsClientStays() async throws {
            try await isolated()
            let scratch = try ExecScratch()
            try scratch.write(
                """
                start 10.9.0.20
                end 10.9.0.20
                interface t0
                lease_file \(scratch.file("leases"))
                pidfile \(scratch.file("pid"))
                option subnet 255.255.255.0
                option router 10.9.0.1
                option lease 600

                """, to: "udhcpd.conf")
            try scratch.write("", to: "leases")
            let guest = """
                ip route; kill -USR1 $(pidof udhcpc); sleep 2; echo renewed; ip route; echo end
                """
            let encoded = Data(guest.utf8).base64EncodedString()
            let result = try await ChildProcess.run(
                [
                    "unshare", "-n", "bash", "-c", around("busybox udhcpd -f '\(scratch.file("udhcpd.conf"))' > '\(scratch.file("log"))' 2>&1"), "bash",
                    Hover.path, "run", "linux", "--engine", "interpreter", "--memory", "256M", "--net", "tap:t0", "--append",
                    "windhover.exec=\(encoded)",
                ], deadline: Exec.deadline)
            #expect(result.status == 0, "\(result.summary)")
            let lines = ExpectedOutput.lines(of: result.output.filter { $0 != "\r" })
            let middle = try #require(lines.firstIndex(of: "renewed"), "\(result.summary)")
            let after = Array(lines[(middle + 1)...].prefix { $0 != "end" })
            #expect(after.count == 2 && Array(lines[..<middle].suffix(2)) == after, "\(result.summary)")
            #expect(after.last?.contains("10.9.0.0/24") == true, "\(result.summary)")
            let acks = (scratch.text("log") ?? "").split(separator: "\n").filter { $0.contains("sending ACK") }
            #expect(acks.count == 2, "\(acks)\n\(result.summary)")
        }
    }
}
