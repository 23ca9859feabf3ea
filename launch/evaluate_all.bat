@echo off
rem As evaluate.bat, and every checkpoint of stage rl too.
rem     launch\evaluate_all.bat --workdir=runs/tiny
rem Arguments are passed on; paths count from the repository's root. PRESET (tiny) names the preset.
setlocal
cd /d "%~dp0.." || exit /b 1
if not defined PRESET set "PRESET=tiny"
python -m launch.main "--config=configs/evaluate.py:%PRESET%" --config.evaluate.checkpoints=all %*
exit /b %ERRORLEVEL%
