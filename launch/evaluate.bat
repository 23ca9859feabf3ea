@echo off
rem Teacher and student, before and after, on held-out problems; the report.
rem     launch\evaluate.bat --workdir=runs/tiny
rem Arguments are passed on; paths count from the repository's root. PRESET (tiny) names the preset.
setlocal
cd /d "%~dp0.." || exit /b 1
if not defined PRESET set "PRESET=tiny"
python -m launch.main "--config=configs/evaluate.py:%PRESET%" %*
exit /b %ERRORLEVEL%
