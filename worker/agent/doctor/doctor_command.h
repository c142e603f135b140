// `switchyard-agent doctor`: what is wrong with this machine, as JSON for `switchyard doctor`.
#pragma once

namespace switchyard::agent {

// Parses its own flags; 0 when it could look, whatever it found.
int DoctorCommand(int argc, char** argv);

}  // namespace switchyard::agent
